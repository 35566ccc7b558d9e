"""Coverage from count strings against decoded masks, and masks made smaller."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as pycoco

from amg.errors import RleError
from amg.ops import rle
from amg.ops.coverage import covered_pixels, covered_pixels_of_images
from amg.ops.rle_resize import shrink
from amg.records import Rle


def _covered_plainly(masks):
    """The plain twin: decode all, take the union."""
    union = np.zeros(masks[0].size_hw, bool) if masks else np.zeros((1, 1), bool)
    for mask in masks:
        union |= rle.decode(mask)
    return int(union.sum())


def _masks(seed, m, h, w, share):
    return rle.encode_masks(np.random.default_rng(seed).random((m, h, w)) < share)


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    m=st.integers(0, 5),
    h=st.integers(1, 40),
    w=st.integers(1, 40),
    share=st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]),
)
def test_it_is_the_area_of_the_union(seed, m, h, w, share):
    masks = _masks(seed, m, h, w, share)
    assert covered_pixels(masks) == _covered_plainly(masks)


def test_long_runs_and_every_alignment_to_words():
    for begin in range(0, 140, 7):
        for length in (1, 2, 63, 64, 65, 130, 700):
            masks = [rle.from_runs([begin, length, 1000 - begin - length], (50, 20))]
            assert covered_pixels(masks) == length


def test_images_of_other_sizes_in_one_call():
    images = [_masks(1, 3, 30, 41, 0.1), [], _masks(2, 1, 7, 5, 0.4), _masks(3, 9, 90, 2, 0.1)]
    sizes = [(30, 41), (10, 10), (7, 5), (90, 2)]
    masks = [mask for image in images for mask in image]
    text = np.frombuffer("".join(mask.counts for mask in masks).encode(), np.uint8)
    covered = covered_pixels_of_images(
        text,
        np.cumsum([0, *(len(mask.counts) for mask in masks)]),
        np.cumsum([0, *map(len, images)]),
        np.array([h * w for h, w in sizes]),
    )
    assert covered.tolist() == [_covered_plainly(image) for image in images]


@pytest.mark.parametrize(
    "counts",
    ["", "0", "5", "7~", "P", "\x10", "¡", "oooooooo0", "Sd0", "20O7", "6000P"],
    ids=repr,
)
def test_counts_that_do_not_fill_the_image_are_refused(counts):
    good = Rle((2, 3), "6")
    with pytest.raises(RleError):
        rle.runs(Rle((2, 3), counts))
    with pytest.raises(RleError, match="counts of mask 1"):
        covered_pixels([good, Rle((2, 3), counts), good])


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    full=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    data=st.data(),
)
def test_a_smaller_mask_is_the_mask_at_the_centres_of_pixels(seed, full, data):
    h, w = (data.draw(st.integers(1, side)) for side in full)
    (mask,) = _masks(seed, 1, *full, 0.5)
    ys, xs = (
        (2 * np.arange(n) + 1) * side // (2 * n) for n, side in zip((h, w), full, strict=True)
    )
    small = shrink(mask, (h, w))
    np.testing.assert_array_equal(
        pycoco.decode({"size": [h, w], "counts": small.counts}), rle.decode(mask)[np.ix_(ys, xs)]
    )


def test_at_its_own_size_a_mask_stays_as_it_is():
    (mask,) = _masks(5, 1, 33, 21, 0.3)
    assert shrink(mask, (33, 21)) == mask


def test_images_without_masks_are_not_covered():
    none = covered_pixels_of_images(
        np.zeros(0, np.uint8), np.zeros(1, np.int64), np.zeros(4, np.int64), np.full(3, 9)
    )
    assert none.tolist() == [0, 0, 0]
