"""What is chosen of an image's masks, after NMS in the crops."""

import pytest

from amg import GeneratorConfig
from amg.generate.selection import select_masks, suppress_in_crops
from tests.generate.make_masks import make_mask, random_masks, rectangle

SIZE_HW = (40, 60)


def _select(masks, **options):
    return select_masks(masks, SIZE_HW, GeneratorConfig(**options))


SQUARES = [make_mask(rectangle(0, 0, side, side)) for side in (4, 10, 20, 40)]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, [16, 100, 400, 1600]),
        ({"min_area": 100}, [100, 400, 1600]),
        ({"min_area": 101}, [400, 1600]),
        ({"max_area": 400}, [16, 100, 400]),
        ({"max_area": 399}, [16, 100]),
        ({"max_area_fraction": 400 / 2400}, [16, 100, 400]),
        ({"max_area_fraction": 0.1, "max_area": 1000}, [16, 100]),
        ({"min_area": 17, "max_area": 1599}, [100, 400]),
        ({"min_area": 5000}, []),
    ],
)
def test_areas_are_limited(options, kept):
    assert [mask.area for mask in _select(SQUARES, **options)] == kept


def test_areas_are_those_after_cleaning():
    speckled = rectangle(0, 0, 20, 20) | rectangle(50, 30, 53, 33)
    masks = [make_mask(speckled)]
    assert speckled.sum() == 409
    assert [m.area for m in _select(masks, max_area=400, min_mask_region_area=10)] == [400]
    assert _select(masks, max_area=400) == []


def test_a_near_copy_does_not_come_in_place_of_what_is_too_large():
    copies = [make_mask(rectangle(0, 0, 20, 21), 0.9), make_mask(rectangle(0, 0, 20, 20), 0.8)]
    assert _select(copies, mask_nms_thresh=0.8, max_area=400) == []
    assert _select(copies, max_area=400) == copies[1:]


def test_parents_are_found_among_what_is_left():
    house, wall, pane = rectangle(0, 0, 60, 30), rectangle(0, 0, 20, 20), rectangle(5, 5, 9, 9)
    masks = [make_mask(bits) for bits in (wall, pane, house)]
    assert [m.parent for m in _select(masks)] == [None, None, None]
    assert [m.parent for m in _select(masks, find_parents=True)] == [2, 0, None]
    assert [m.parent for m in _select(masks, find_parents=True, max_area=399)] == [None]
    without_wall = _select(masks[1:], find_parents=True)
    assert [m.parent for m in without_wall] == [1, None]


@pytest.mark.parametrize("seed", range(20))
def test_filters_of_area_only_ever_remove(seed):
    masks = random_masks(seed, 15)
    options = {"mask_nms_thresh": 0.5, "min_mask_region_area": 3}
    every = _select(masks, **options)
    some = _select(masks, **options, min_area=10, max_area=60)
    assert some == [mask for mask in every if 10 <= mask.area <= 60]


def test_masks_of_other_crops_are_no_duplicates_yet():
    left, right = (0, 0, 40, 40), (20, 0, 40, 40)
    bits = rectangle(22, 5, 38, 35)
    masks = [
        make_mask(bits, 0.7, left, 1),
        make_mask(bits, 0.8, left, 1),
        make_mask(bits, 0.6, right, 1),
        make_mask(rectangle(25, 5, 30, 10), 0.9, right, 1),
    ]
    kept = suppress_in_crops(masks, 0.7)
    assert kept == [masks[1], masks[3], masks[2]]
    between = _select(kept, crop_n_layers=1)
    assert between == [masks[1], masks[3]]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"crop_n_layers": 1, "min_mask_region_area": 5, "mask_nms_thresh": 0.5},
        {"find_parents": True, "min_area": 3},
    ],
)
def test_nothing_in_nothing_out(options):
    assert _select([], **options) == []
    assert suppress_in_crops([], 0.7) == []
