"""How many pixels masks of an image share, from their run lengths: none of them is decoded."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from amg.ops.compiled import compiled
from amg.ops.run_ends import run_ends
from amg.records import Rle

Int64s = npt.NDArray[np.int64]


def intersection_areas(masks: Sequence[Rle], pairs: Int64s) -> Int64s:
    """Pixels (P,) in both masks of each pair, an index (P, 2) of masks of one size.

    Raises RleError for counts that are not valid.
    """
    shared = np.zeros(len(pairs), np.int64)
    wanted, places = np.unique(pairs, return_inverse=True)
    if len(wanted):
        ends, firsts = run_ends([masks[i] for i in wanted.tolist()])
        _count_shared(ends, firsts, places.reshape(-1, 2), shared)
    return shared


@compiled
def _count_shared(ends: Int64s, firsts: Int64s, pairs: Int64s, shared: Int64s) -> None:
    """Walk along both masks of each pair from run's end to run's end, as one merges sorted lists.

    ends: where the runs of all masks end, mask m's from firsts[m] to firsts[m + 1].
    """
    for p in range(len(pairs)):
        a, b = pairs[p, 0], pairs[p, 1]
        i, j = firsts[a], firsts[b]
        # Nothing is shared before the foreground of both has begun.
        at = max(ends[i], ends[j])
        i += np.searchsorted(ends[i : firsts[a + 1]], at, side="right")
        j += np.searchsorted(ends[j : firsts[b + 1]], at, side="right")
        while i < firsts[a + 1] and j < firsts[b + 1]:
            end = min(ends[i], ends[j])
            if (i - firsts[a]) & (j - firsts[b]) & 1:
                shared[p] += end - at
            at = end
            i += ends[i] == end
            j += ends[j] == end
