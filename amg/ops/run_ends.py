"""Where the runs of masks end, read from many count strings at once in compiled loops.

The twin of `amg.ops.rle.runs`, which reads one and says what is wrong with it.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from amg.ops import rle
from amg.ops.compiled import compiled
from amg.records import Rle

Int64s = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

_MAX_SHIFT = 30  # of the seventh character of a number, the last that a valid one has


def run_ends(masks: Sequence[Rle]) -> tuple[Int64s, Int64s]:
    """Where the runs of masks of one size end, column-major, background first.

    All masks' ends one after the other, and where in them each mask's stop (M,). The same as the
    sums of `rle.runs`, of many masks at once. Raises RleError as it does.
    """
    texts = [mask.counts.encode(errors="surrogatepass") for mask in masks]
    text = np.frombuffer(b"".join(texts), np.uint8)
    text_stops = np.cumsum([len(of_mask) for of_mask in texts])
    ends = np.empty(len(text), np.int64)  # a run has one character at least
    stops = np.zeros(len(masks), np.int64)
    height, width = masks[0].size_hw
    n_read = _read_all(text, text_stops, height * width, ends, stops)
    if n_read < len(masks):
        rle.runs(masks[n_read])  # says what is wrong
        raise AssertionError(f"a valid mask was not read: {masks[n_read]}")
    return ends[: stops[-1]], stops


@compiled
def _read_all(text: Bytes, text_stops: Int64s, n_pixels: int, ends: Int64s, stops: Int64s) -> int:
    """Read count strings; give how many come before the first that is not valid."""
    begin = n_ends = 0
    for m in range(len(text_stops)):
        n_runs = read_counts(text[begin : text_stops[m]], n_pixels, ends[n_ends:])
        if n_runs < 0:
            return m
        n_ends += n_runs
        stops[m] = n_ends
        begin = text_stops[m]
    return len(text_stops)


@compiled
def read_counts(text: Bytes, n_pixels: int, ends: Int64s) -> int:
    """Read one count string (rleFrString) into `ends`, which has a place for each character.

    Gives how many runs there are, -1 for a string that does not fill the mask.
    """
    at = n_runs = total = 0
    while at < len(text):
        value = shift = digit = 0
        more = True
        while more:
            if at == len(text) or shift > _MAX_SHIFT or not 48 <= text[at] < 112:
                return -1
            digit = np.int64(text[at]) - 48
            value |= (digit & 31) << shift
            shift += 5
            at += 1
            more = digit >= 32
        if digit & 16:
            value -= 1 << shift
        if n_runs > 2:  # the difference to the length two before
            value += ends[n_runs - 2] - ends[n_runs - 3]
        total += value
        if value < 0 or total > n_pixels:
            return -1
        ends[n_runs] = total
        n_runs += 1
    return n_runs if total == n_pixels else -1
