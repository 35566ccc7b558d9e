"""Recipes: the phases that a training goes through, for each machine and beginning."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Phase:
    """One stretch of training, a `share` of the time budget.

    The learning rate and the balance of foreground go linearly from start to end. Each scene is
    photographed `n_views` times: more where making scenes is what takes the time.
    """

    name: str
    share: float
    size_px: int
    batch_size: int
    n_points: int
    lr_start: float
    lr_end: float
    balance_start: float
    balance_end: float
    n_views: int = 1


RECIPES: dict[str, tuple[Phase, ...]] = {
    # From random weights, on a CPU.
    "scratch": (
        Phase("affinity", 0.15, 224, 16, 24, 1.5e-3, 1.0e-3, 1.0, 1.0),
        Phase("whole", 0.50, 224, 16, 16, 1.0e-3, 4.0e-4, 1.0, 0.5),
        Phase("large", 0.35, 448, 4, 24, 3.0e-4, 1.0e-5, 0.5, 0.3),
    ),
    # From earlier weights, on a CPU.
    "further": (
        Phase("middle", 0.5, 320, 16, 10, 8.0e-4, 5.0e-4, 0.4, 0.3),
        Phase("large", 0.5, 448, 8, 12, 5.0e-4, 1.0e-5, 0.3, 0.3),
    ),
    # From earlier weights, on a GPU with 16 cores beside it, which make its scenes.
    "gpu": (
        Phase("middle", 0.25, 320, 96, 24, 1.0e-3, 7.0e-4, 0.5, 0.3, n_views=2),
        Phase("large", 0.75, 448, 48, 24, 7.0e-4, 1.0e-5, 0.3, 0.3, n_views=2),
    ),
}
