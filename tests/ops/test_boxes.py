import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchvision.ops import box_convert

from amg.ops.boxes import record_boxes_xyxy, xywh_to_xyxy, xyxy_to_xywh
from amg.ops.full_size_plain import mask_boxes
from amg.ops.rle import pixel_box_xywh
from tests.generate.make_masks import make_mask
from tests.ops.shapes import SHAPES

BOXES = arrays(np.int64, st.tuples(st.integers(0, 5), st.just(4)), elements=st.integers(0, 10**6))


@given(BOXES)
def test_conversions_are_torchvisions_and_each_others_inverse(boxes):
    corners = xywh_to_xyxy(boxes)
    assert corners.dtype == np.int64
    expected = box_convert(torch.from_numpy(boxes), "xywh", "xyxy").numpy()
    np.testing.assert_array_equal(corners, expected)
    np.testing.assert_array_equal(xyxy_to_xywh(corners), boxes)
    for one, converted in zip(boxes, corners, strict=True):
        np.testing.assert_array_equal(xywh_to_xyxy(one), converted)


def test_boxes_by_index_are_one_less_than_boxes_that_count_pixels():
    masks = [make_mask(bits) for bits in SHAPES.values()]
    by_index = record_boxes_xyxy(masks)
    expected = [mask_boxes(torch.from_numpy(bits)[None])[0].tolist() for bits in SHAPES.values()]
    assert by_index.tolist() == expected
    by_pixels = xywh_to_xyxy(np.array([pixel_box_xywh(mask.rle) for mask in masks]))
    np.testing.assert_array_equal(by_pixels, by_index + np.array([0, 0, 1, 1]))
    assert record_boxes_xyxy([]).shape == (0, 4)
