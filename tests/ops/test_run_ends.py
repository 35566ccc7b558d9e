"""Count strings read many at once, against those read one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amg import RleError
from amg.ops import rle
from amg.ops.run_ends import run_ends
from amg.records import Rle


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1), st.integers(0, 10_000))
def test_run_ends_are_the_sums_of_runs(lengths, seed):
    rng = np.random.default_rng(seed)
    runs = [rng.permutation(lengths) for _ in range(3)] if sum(lengths) else [np.array([9])] * 3
    size_hw = (int(runs[0].sum()), 1)
    masks = [Rle(size_hw, counts) for counts in rle.compress_counts(runs)]  # with empty runs
    ends, firsts = run_ends(masks)
    for found, expected in zip(np.split(ends, firsts[1:-1]), runs, strict=True):
        assert found.tolist() == np.cumsum(expected).tolist()


@pytest.mark.parametrize(
    "counts", ["", "0", "PPPP", "not RLE", "~~~~", "é", "o", "ooooooo0", "\ud800"]
)
def test_counts_that_are_not_valid_are_refused(counts):
    (good,) = rle.encode_masks(np.ones((1, 3, 3), bool))
    with pytest.raises(RleError):
        run_ends([good, Rle((3, 3), counts)])


def test_runs_of_the_largest_masks_are_read():
    side = 46340
    lengths = np.array([1, 1, side * side - 3, 1])
    ends, _ = run_ends([rle.from_runs(lengths, (side, side))])
    assert ends.tolist() == np.cumsum(lengths).tolist()


def test_no_masks_have_no_runs():
    ends, firsts = run_ends([])
    assert (ends.tolist(), firsts.tolist()) == ([], [0])
