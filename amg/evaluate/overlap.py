"""How much masks overlap, from their run lengths: no pixel is drawn."""

from collections.abc import Sequence

import numpy as np

from amg.ops import rle
from amg.records import Rle


def pairwise_iou(first: Sequence[Rle], second: Sequence[Rle]) -> np.ndarray:
    """IoU (M, N) float64 of M masks with N masks of the same image; two empty masks have 1.

    Raises RleError for counts that are not valid.
    """
    assert len({mask.size_hw for mask in (*first, *second)}) <= 1, "masks of one image"
    if not first:
        return np.ones((0, len(second)))
    spans = [_spans(mask) for mask in first]
    starts, ends = (np.concatenate(side) for side in zip(*spans, strict=True))
    owner = np.repeat(np.arange(len(first)), [len(starts) for starts, _ in spans])
    areas = np.bincount(owner, ends - starts, minlength=len(first))
    ious = np.ones((len(first), len(second)))
    for column, mask in enumerate(second):
        borders, n_below = _foreground_below(mask)
        # Linear between borders with slope 0 or 1: what `interp` gives is exact.
        inside = np.interp(ends, borders, n_below) - np.interp(starts, borders, n_below)
        overlaps = np.bincount(owner, inside, minlength=len(first))
        unions = areas + n_below[-1] - overlaps
        np.divide(overlaps, unions, out=ious[:, column], where=unions > 0)
    return ious


def _spans(mask: Rle) -> tuple[np.ndarray, np.ndarray]:
    """Where the foreground's runs start and end, as column-major pixel numbers (R,)."""
    lengths = rle.runs(mask)
    ends = np.cumsum(lengths)[1::2]
    return ends - lengths[1::2], ends


def _foreground_below(mask: Rle) -> tuple[np.ndarray, np.ndarray]:
    """Where each run ends, and how many foreground pixels lie before; both (R,)."""
    lengths = rle.runs(mask)
    foreground = np.where(np.arange(len(lengths)) % 2 == 1, lengths, 0)
    return np.cumsum(lengths, dtype=np.int64), np.cumsum(foreground)
