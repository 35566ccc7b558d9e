"""Recipes: the phases that a training goes through, for each machine."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Phase:
    """One stretch of training, a `share` of all scenes.

    Every scene is asked by `n_points` points and `n_boxes` boxes; twice `n_boxes` of them, half of
    either kind, are asked again. The learning rate and the balance of foreground go linearly from
    start to end. Each scene is photographed `n_views` times: more where making scenes is what takes
    the time. `trains_trunk`: or the pretrained trunk stays as it is.
    """

    name: str
    share: float
    size_px: int
    batch_size: int
    n_points: int
    n_boxes: int
    lr_start: float
    lr_end: float
    balance_start: float
    balance_end: float
    n_views: int = 1
    trains_trunk: bool = True


RECIPES: dict[str, tuple[Phase, ...]] = {
    "cpu": (
        Phase("neck", 0.015, 320, 8, 12, 3, 1.0e-3, 1.0e-3, 0.5, 0.5, 2, trains_trunk=False),
        Phase("middle", 0.085, 320, 8, 12, 3, 8.0e-4, 8.0e-4, 0.5, 0.3, n_views=2),
        Phase("large", 0.70, 448, 8, 10, 5, 6.0e-4, 6.0e-4, 0.3, 0.3, n_views=2),
        Phase("settle", 0.20, 448, 8, 10, 5, 6.0e-4, 1.0e-6, 0.3, 0.3, n_views=2),
    ),
    # With 16 cores beside it, which make its scenes.
    "gpu": (
        Phase("neck", 0.03, 320, 96, 24, 4, 1.0e-3, 1.0e-3, 0.5, 0.5, 2, trains_trunk=False),
        Phase("middle", 0.27, 320, 96, 24, 6, 1.0e-3, 8.0e-4, 0.5, 0.3, n_views=2),
        Phase("large", 0.70, 448, 48, 24, 6, 8.0e-4, 1.0e-6, 0.3, 0.3, n_views=2),
    ),
}
