"""Many count strings read in one compiled pass: what `amg.ops.rle` reads one by one."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from amg.ops import rle
from amg.ops.compiled import compiled
from amg.records import Rle

Int64s = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

_MAX_CHARS = 7  # as in amg.ops.rle
NOT_VALID = -1


def run_ends(masks: Sequence[Rle]) -> tuple[Int64s, Int64s]:
    """Where the runs of masks of one size end, column-major, background first.

    All masks' ends one after the other, and where among them each mask's begin and stop, (M + 1,).
    The same as the sums of `rle.runs`, and raises RleError as it does.
    """
    texts = [mask.counts.encode(errors="surrogatepass") for mask in masks]  # no ASCII: not valid
    starts = np.cumsum([0, *map(len, texts)])
    ends = np.empty(starts[-1], np.int64)  # a run has one character at least
    firsts = np.zeros(len(masks) + 1, np.int64)
    n_pixels = masks[0].size_hw[0] * masks[0].size_hw[1] if masks else 0
    text = np.frombuffer(b"".join(texts), np.uint8)
    bad_mask = _read_all(text, starts, n_pixels, ends, firsts)
    if bad_mask != NOT_VALID:
        rle.runs(masks[bad_mask])  # says what is wrong
        raise AssertionError(f"a valid mask was not read: {masks[bad_mask]}")
    return ends[: firsts[-1]], firsts


@compiled
def _read_all(text: Bytes, starts: Int64s, n_pixels: int, ends: Int64s, firsts: Int64s) -> int:
    """Read strings text[starts[m]:starts[m + 1]]; the first that is not valid, or NOT_VALID."""
    for m in range(len(starts) - 1):
        n_runs = read_ends(text[starts[m] : starts[m + 1]], n_pixels, ends[firsts[m] :])
        if n_runs == NOT_VALID:
            return m
        firsts[m + 1] = firsts[m] + n_runs
    return NOT_VALID


@compiled
def read_ends(text: Bytes, n_pixels: int, ends: Int64s) -> int:
    """Write where the runs of one count string end; give how many there are.

    NOT_VALID for a string that does not fill the mask's pixels. `ends` has room for as many as
    there are characters. The reading is pycocotools' rleFrString: see `amg.ops.rle`.
    """
    end = n_runs = value = n_chars = 0
    last = before_last = 0
    for character in text:
        digit = np.int64(character) - 48
        if digit < 0 or digit > 63 or n_chars == _MAX_CHARS:
            return NOT_VALID
        value |= (digit & 31) << 5 * n_chars
        n_chars += 1
        if digit & 32:
            continue
        if digit & 16:
            value -= np.int64(1) << 5 * n_chars
        if n_runs > 2:
            value += before_last
        end += value
        if value < 0 or end > n_pixels:
            return NOT_VALID
        ends[n_runs] = end
        before_last, last = last, value
        n_runs += 1
        value = n_chars = 0
    return n_runs if n_chars == 0 and end == n_pixels else NOT_VALID
