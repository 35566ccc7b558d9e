import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything.utils.amg import remove_small_regions

from amg.generate.regions import clean_small_regions, drop_small_islands, fill_small_holes
from amg.ops import rle
from tests.generate.make_masks import make_mask


def _noise(seed, density):
    rng = np.random.default_rng(seed)
    return rng.random((24, 31)) < density


@settings(deadline=None)
@given(st.integers(0, 1000), st.floats(0, 1), st.integers(0, 40))
def test_holes_and_islands_are_those_of_the_original(seed, density, min_area):
    mask = _noise(seed, density)
    for ours, mode in ((fill_small_holes, "holes"), (drop_small_islands, "islands")):
        expected, changed = remove_small_regions(mask, min_area, mode)
        cleaned = ours(mask, min_area)
        np.testing.assert_array_equal(cleaned, expected)
        assert (cleaned is not mask) == changed


def test_the_largest_island_stays_where_all_are_small():
    mask = np.zeros((10, 10), dtype=bool)
    mask[1:3, 1:3] = True
    mask[5:8, 5:8] = True
    cleaned = drop_small_islands(mask, 50)
    assert cleaned.sum() == 9
    assert cleaned[6, 6]


def test_islands_that_touch_at_a_corner_are_one():
    mask = np.zeros((4, 4), dtype=bool)
    mask[:2, :2] = mask[2:, 2:] = True
    assert drop_small_islands(mask, 8) is mask


def test_an_empty_mask_stays_empty():
    mask = np.zeros((4, 4), dtype=bool)
    assert not drop_small_islands(mask, 5).any()


def test_unchanged_masks_win_over_cleaned_duplicates():
    whole = np.zeros((40, 40), dtype=bool)
    whole[5:30, 5:30] = True
    speckled = whole.copy()
    speckled[36, 36] = True
    cleaned = clean_small_regions([make_mask(speckled, 0.99), make_mask(whole, 0.5)], 10, 0.7)
    assert [mask.predicted_iou for mask in cleaned] == [0.5]


def test_a_changed_mask_gets_its_new_area_and_box():
    bits = np.zeros((40, 40), dtype=bool)
    bits[5:30, 5:30] = True
    bits[10, 10] = False
    bits[38, 38] = True
    (cleaned,) = clean_small_regions([make_mask(bits)], 10, 0.7)
    assert cleaned.area == 625
    assert cleaned.bbox_xywh == (5, 5, 24, 24)
    assert rle.decode(cleaned.rle)[10, 10]
    assert cleaned.point_xy == (1.0, 2.0)


@pytest.mark.parametrize("masks", [[]])
def test_nothing_in_nothing_out(masks):
    assert clean_small_regions(masks, 10, 0.7) == []
