"""Shared pixels of masks, against the masks themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amg import RleError
from amg.ops import rle
from amg.ops.rle_overlap import intersection_areas
from amg.records import Rle

ALL_PAIRS = np.array([(i, j) for i in range(5) for j in range(5)])


@settings(deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1), st.integers(1, 12), st.integers(1, 12))
def test_intersections_are_the_pixels_in_both(seed, density, height, width):
    bits = np.random.default_rng(seed).random((5, height, width)) < density
    bits[3] = False
    bits[4, : height // 2] = True
    expected = [(bits[i] & bits[j]).sum() for i, j in ALL_PAIRS]
    assert intersection_areas(rle.encode_masks(bits), ALL_PAIRS).tolist() == expected


def test_masks_that_no_pair_names_are_not_read():
    (good,) = rle.encode_masks(np.ones((1, 3, 3), bool))
    masks = [Rle((3, 3), "not counts"), good]
    assert intersection_areas(masks, np.array([(1, 1)])).tolist() == [9]
    assert intersection_areas(masks, np.zeros((0, 2), np.int64)).tolist() == []
    with pytest.raises(RleError):
        intersection_areas(masks, np.array([(0, 1)]))
