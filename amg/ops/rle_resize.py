"""Masks at the size of a picture that is smaller than theirs, without decoding them."""

import numpy as np
import numpy.typing as npt

from amg.ops import rle
from amg.records import Rle

Int64s = npt.NDArray[np.int64]


def shrink(mask: Rle, size_hw: tuple[int, int]) -> Rle:
    """Sample a mask at the centres of the pixels of a picture of `size_hw`, no side larger.

    Only the ends of runs are moved: each goes to the number of sampled pixels in front of it,
    column-major, so the cost is that of the runs, and not of the pixels.

    Raises RleError for counts that are not valid.
    """
    h, w = size_hw
    full_h, full_w = mask.size_hw
    columns, rows = np.divmod(np.cumsum(rle.runs(mask)), full_h)
    columns_before, is_sampled = _ranks(full_w, w)
    rows_before, _ = _ranks(full_h, h)
    ends = columns_before[columns] * h + is_sampled[columns] * rows_before[rows]
    return rle.from_runs(np.diff(ends, prepend=0), size_hw)


def _ranks(n_full: int, n: int) -> tuple[Int64s, Int64s]:
    """For 0 to n_full: how many of n samples lie in front, and whether (0 or 1) one lies there."""
    samples = (2 * np.arange(n) + 1) * n_full // (2 * n)
    is_sampled = np.zeros(n_full + 1, np.int64)
    is_sampled[samples] = 1
    return np.cumsum(is_sampled) - is_sampled, is_sampled
