"""From low-res logits to the pixels of a crop: two bilinear steps as one, a few taps a pixel.

A bilinear resize is linear and works along each axis alone. So are two of them, with padding cut
off in between: each output pixel is a weighted mean of at most three low-res rows and as many
columns. The weights are what the two steps make of unit vectors.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

TAPS = 3
"""Low-res values that an output pixel depends on, along one axis: neighbours at the middle step
are at most one low-res step apart."""

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class AxisTaps:
    """What each of `size` outputs along an axis takes from the low-res values.

    Output i is the sum of `weights[i]` (size, TAPS) over the values from `starts[i]` on. Outputs
    `edges[k]` to `edges[k + 1]` share their start.
    """

    starts: Indices
    weights: Floats
    edges: Indices

    @property
    def size(self) -> int:
        """How many outputs there are."""
        return len(self.starts)


@dataclass(frozen=True, slots=True)
class Resampling:
    """Taps for the rows and for the columns of a crop."""

    rows: AxisTaps
    columns: AxisTaps


@lru_cache(maxsize=256)
def bilinear_taps(n_low: int, n_middle: int, n_kept: int, size: int) -> AxisTaps:
    """Resize `n_low` values to `n_middle`, keep the first `n_kept`, resize those to `size`.

    Bilinear without antialiasing, pixel centres at halves (`align_corners=False`). Raises
    ValueError where that takes more than three taps: the first step must not shrink.
    """
    if n_low < TAPS or n_middle < n_low:
        raise ValueError(f"{n_low} low-res values to {n_middle}: must be {TAPS} or more, and grow")
    units = torch.eye(n_low).unsqueeze(0)
    middle = F.interpolate(units, n_middle, mode="linear", align_corners=False)[:, :, :n_kept]
    matrix = F.interpolate(middle, size, mode="linear", align_corners=False)[0].T.numpy()
    starts = np.minimum((matrix != 0).argmax(axis=1), n_low - TAPS)
    weights = np.take_along_axis(matrix, starts[:, None] + np.arange(TAPS), axis=1)
    if np.count_nonzero(weights) != np.count_nonzero(matrix):
        raise ValueError(f"{n_low} -> {n_middle}[:{n_kept}] -> {size} takes over {TAPS} taps")
    edges = np.concatenate([[0], np.flatnonzero(np.diff(starts)) + 1, [size]])
    return AxisTaps(starts, np.ascontiguousarray(weights), edges)
