"""The grid of point prompts. Source: `segment_anything/utils/amg.py`, build_point_grid."""

import math

import numpy as np

from amg.config import GeneratorConfig
from amg.generate.crops import Crop


def point_grid(n_columns: int, n_rows: int) -> np.ndarray:
    """The cell centres of a grid over the unit square, row by row: (N, 2) float64, x y."""
    x, y = np.meshgrid(_centres(n_columns), _centres(n_rows))
    return np.stack([x, y], axis=-1).reshape(-1, 2)


def _centres(n: int) -> np.ndarray:
    offset = 1 / (2 * n)
    return np.linspace(offset, 1 - offset, n)


def even_counts(points_per_side: int, size_hw: tuple[int, int]) -> tuple[int, int]:
    """Columns and rows of about points_per_side ** 2 points as far apart in x as in y.

    The shorter side has one row at least; on a square both are `points_per_side`.
    """
    height, width = size_hw
    short = max(1, round(points_per_side * math.sqrt(min(size_hw) / max(size_hw))))
    long = max(1, round(points_per_side**2 / short))
    return (long, short) if width >= height else (short, long)


def crop_points(crop: Crop, config: GeneratorConfig) -> np.ndarray:
    """The prompts of a crop, (N, 2) float64 x y in its pixels.

    None on a layer whose grid has shrunk to nothing.
    """
    height, width = crop.size_hw
    return _unit_points(crop, config) * np.array([width, height])


def _unit_points(crop: Crop, config: GeneratorConfig) -> np.ndarray:
    """The same in the unit square."""
    if config.point_grids is not None:
        return np.array(config.point_grids[crop.layer], dtype=np.float64).reshape(-1, 2)
    assert config.points_per_side is not None
    side = int(config.points_per_side / config.crop_n_points_downscale_factor**crop.layer)
    if not side:
        return np.zeros((0, 2))
    if config.points_follow_aspect:
        return point_grid(*even_counts(side, crop.size_hw))
    return point_grid(side, side)
