"""Masks that overlap, painted as one map."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from amg import Mask
from amg.ops import rle
from amg.ops.label_map import paint, pixel_boxes_xywh


def _mask(bits, score=0.9):
    return Mask(
        rle=rle.encode_masks(bits[None])[0],
        area=int(bits.sum()),
        bbox_xywh=(0, 0, 1, 1),
        predicted_iou=score,
        stability_score=0.9,
        point_xy=(0, 0),
        crop_box_xywh=(0, 0, *bits.shape[::-1]),
        crop_layer=0,
        level=0,
    )


@st.composite
def _stacks(draw):
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 9)))
    scores = draw(st.lists(st.sampled_from([0.5, 0.7, 0.9]), min_size=6, max_size=6))
    return draw(arrays.arrays(np.bool_, shape)), scores[: shape[0]]


@settings(max_examples=200, deadline=None)
@given(_stacks(), st.sampled_from(["smaller-on-top", "score"]))
def test_each_pixel_has_the_topmost_mask_that_covers_it(stack, overlap):
    bits, scores = stack
    masks = [_mask(one, score) for one, score in zip(bits, scores, strict=True)]
    values = [10 * (i + 1) for i in range(len(masks))]
    canvas = paint(masks, values, bits.shape[1:], overlap)
    for y, x in np.ndindex(canvas.shape):
        over = [i for i in range(len(masks)) if bits[i, y, x]]
        by_size = {i: (masks[i].area, -scores[i], i) for i in over}
        by_score = {i: (-scores[i], masks[i].area, i) for i in over}
        rank = by_size if overlap == "smaller-on-top" else by_score
        assert canvas[y, x] == (values[min(over, key=rank.__getitem__)] if over else 0)


@settings(max_examples=100, deadline=None)
@given(_stacks())
def test_boxes_hold_what_is_seen(stack):
    bits, scores = stack
    masks = [_mask(one, score) for one, score in zip(bits, scores, strict=True)]
    values = list(range(1, len(masks) + 1))
    canvas = paint(masks, values, bits.shape[1:], "smaller-on-top")
    for value, (x, y, w, h) in zip(values, pixel_boxes_xywh(canvas, masks, values), strict=True):
        seen = canvas == value
        assert (w > 0) == seen.any()
        if seen.any():
            rows, columns = np.nonzero(seen)
            assert (x, y) == (columns.min(), rows.min())
            assert (x + w - 1, y + h - 1) == (columns.max(), rows.max())


@pytest.mark.parametrize(("overlap", "top"), [("smaller-on-top", 2), ("score", 1)])
def test_rules_differ_where_the_larger_mask_is_better(overlap, top):
    whole, part = np.ones((4, 4), bool), np.zeros((4, 4), bool)
    part[1:3, 1:3] = True
    canvas = paint([_mask(whole, 0.9), _mask(part, 0.6)], [1, 2], (4, 4), overlap)
    assert canvas[1, 1] == top
    assert canvas[0, 0] == 1
