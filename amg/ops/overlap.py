"""How many pixels masks of an image share, from their run lengths: none of them is drawn."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from amg.ops import rle
from amg.ops.compiled import compiled
from amg.records import Rle

Int64s = npt.NDArray[np.int64]

_MAX_SHIFT = 30  # of the seventh character of a number, the last that a valid one has


def shared_pixels(masks: Sequence[Rle], pairs: Int64s) -> Int64s:
    """Pixels (P,) in both masks of each pair, an index (P, 2) of masks of one size.

    Raises RleError for counts that are not valid.
    """
    shared = np.zeros(len(pairs), np.int64)
    wanted, places = np.unique(pairs, return_inverse=True)
    if len(wanted):
        ends, stops = run_ends([masks[i] for i in wanted.tolist()])
        starts = np.concatenate([[0], stops[:-1]])
        _count_shared(ends, starts, stops, places.reshape(-1, 2), shared)
    return shared


def run_ends(masks: Sequence[Rle]) -> tuple[Int64s, Int64s]:
    """Where the runs of masks of one size end, column-major, background first.

    All masks' ends one after the other, and where in them each mask's stop (M,). The same as the
    sums of `rle.runs`, of many masks at once. Raises RleError as it does.
    """
    texts = [mask.counts.encode(errors="surrogatepass") for mask in masks]
    characters = np.frombuffer(b"".join(texts), np.uint8)
    text_stops = np.cumsum([len(text) for text in texts])
    ends = np.empty(len(characters), np.int64)  # a run has one character at least
    stops = np.zeros(len(masks), np.int64)
    height, width = masks[0].size_hw
    n_read = _read_ends(characters, text_stops, height * width, ends, stops)
    if n_read < len(masks):
        rle.runs(masks[n_read])  # says what is wrong
        raise AssertionError(f"a valid mask was not read: {masks[n_read]}")
    return ends[: stops[-1]], stops


@compiled
def _read_ends(
    characters: npt.NDArray[np.uint8],
    text_stops: Int64s,
    n_pixels: int,
    ends: Int64s,
    stops: Int64s,
) -> int:
    """Read count strings (rleFrString); give how many come before the first that is not valid."""
    at = k = 0
    for m in range(len(text_stops)):
        first, total = k, 0
        while at < text_stops[m]:
            value = shift = digit = 0
            more = True
            while more:
                if at == text_stops[m] or shift > _MAX_SHIFT or not 48 <= characters[at] < 112:
                    return m
                digit = np.int64(characters[at]) - 48
                value |= (digit & 31) << shift
                shift += 5
                at += 1
                more = digit >= 32
            if digit & 16:
                value -= 1 << shift
            if k - first > 2:  # the difference to the length two before
                value += ends[k - 2] - ends[k - 3]
            if value < 0:
                return m
            total += value
            ends[k] = total
            k += 1
        if total != n_pixels:
            return m
        stops[m] = k
    return len(text_stops)


@compiled
def _count_shared(
    ends: Int64s, starts: Int64s, stops: Int64s, pairs: Int64s, shared: Int64s
) -> None:
    """Walk along both masks of each pair from run's end to run's end, as one merges sorted lists.

    ends: where the runs of all masks end, background first; starts, stops: which are a mask's.
    """
    for p in range(len(pairs)):
        a, b = pairs[p, 0], pairs[p, 1]
        i, j = starts[a], starts[b]
        # Nothing is shared before the foreground of both has begun.
        at = max(ends[i], ends[j])
        i += np.searchsorted(ends[i : stops[a]], at, side="right")
        j += np.searchsorted(ends[j : stops[b]], at, side="right")
        while i < stops[a] and j < stops[b]:
            end = min(ends[i], ends[j])
            if (i - starts[a]) & (j - starts[b]) & 1:
                shared[p] += end - at
            at = end
            i += ends[i] == end
            j += ends[j] == end
