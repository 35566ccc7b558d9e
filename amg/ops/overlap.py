"""How many pixels masks of an image share, from their run lengths: none of them is drawn."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from amg.ops import rle
from amg.ops.compiled import compiled
from amg.records import Rle

Int64s = npt.NDArray[np.int64]


def shared_pixels(masks: Sequence[Rle], pairs: Int64s) -> Int64s:
    """Pixels (P,) in both masks of each pair, an index (P, 2) of masks of one size.

    Raises RleError for counts that are not valid.
    """
    shared = np.zeros(len(pairs), np.int64)
    wanted, places = np.unique(pairs, return_inverse=True)
    if len(wanted):
        ends = [np.cumsum(rle.runs(masks[i])) for i in wanted]
        stops = np.cumsum([len(of_mask) for of_mask in ends])
        starts = np.concatenate([[0], stops[:-1]])
        _count_shared(np.concatenate(ends), starts, stops, places.reshape(-1, 2), shared)
    return shared


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
