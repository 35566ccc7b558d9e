"""The grid of point prompts. Source: `segment_anything/utils/amg.py`, build_point_grid."""

import numpy as np

from amg.config import GeneratorConfig


def point_grid(points_per_side: int) -> np.ndarray:
    """The cell centres of a square grid over the unit square, row by row: (N, 2) float64, x y."""
    offset = 1 / (2 * points_per_side)
    along_side = np.linspace(offset, 1 - offset, points_per_side)
    x, y = np.meshgrid(along_side, along_side)
    return np.stack([x, y], axis=-1).reshape(-1, 2)


def layer_grids(config: GeneratorConfig) -> list[np.ndarray]:
    """One grid for each crop layer, (N, 2) float64 in the unit square.

    A layer whose grid has shrunk to nothing has no prompts, and so no masks.
    """
    if config.point_grids is not None:
        return [np.array(grid, dtype=np.float64).reshape(-1, 2) for grid in config.point_grids]
    assert config.points_per_side is not None
    scale = config.crop_n_points_downscale_factor
    sides = [
        int(config.points_per_side / scale**layer) for layer in range(config.crop_n_layers + 1)
    ]
    return [point_grid(side) if side else np.zeros((0, 2)) for side in sides]
