"""Outlines draw the mask again, by the rules of those who read them."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from pycocotools import mask as coco

from amg.ops import polygons, rle
from tests.ops.shapes import SHAPES, masks


def _filled(loops, size_hw):
    """As pycocotools fills polygons of one annotation."""
    objects = [loop.astype(float).ravel().tolist() for loop in loops]
    return coco.decode(coco.merge(coco.frPyObjects(objects, *size_hw))).astype(bool)


def _drawn(loops, size_hw):
    """As readers of YOLO labels draw a polygon; several are laid over each other."""
    canvas = np.zeros(size_hw, np.uint8)
    for loop in loops:
        cv2.fillPoly(canvas, [loop.astype(np.int32)], 1)
    return canvas.astype(bool)


def _loops(bits, lines):
    return [polygons.corners(polygons.bridge_holes(part)) for part in polygons.trace(bits, lines)]


def _check_both(bits):
    np.testing.assert_array_equal(_filled(_loops(bits, "borders"), bits.shape), bits)
    np.testing.assert_array_equal(_drawn(_loops(bits, "centres"), bits.shape), bits)


@pytest.mark.parametrize("name", SHAPES)
def test_odd_shapes_are_drawn_again(name):
    _check_both(SHAPES[name])


@settings(max_examples=300, deadline=None)
@given(masks())
def test_any_mask_is_drawn_again(bits):
    _check_both(bits)


@settings(max_examples=100, deadline=None)
@given(masks(12))
def test_parts_are_those_of_opencv_and_apart(bits):
    parts = polygons.trace(bits, "borders")
    n_parts, _ = cv2.connectedComponents(bits.astype(np.uint8), connectivity=8)
    assert len(parts) == n_parts - 1
    alone = [_filled([polygons.bridge_holes(part)], bits.shape) for part in parts]
    np.testing.assert_array_equal(np.sum(alone, axis=0), bits)


@settings(max_examples=100, deadline=None)
@given(masks(12))
def test_loops_go_in_steps_of_one_pixel_with_the_mask_inside(bits):
    for part in polygons.trace(bits, "borders"):
        for loop, sign in ((part.outer, 1), *((hole, -1) for hole in part.holes)):
            steps = np.abs(np.roll(loop, -1, axis=0) - loop).sum(axis=1)
            assert (steps == 1).all()
            x, y = loop.astype(np.int64).T
            area = (np.roll(x, -1) * y - x * np.roll(y, -1)).sum()
            assert np.sign(area) == sign, "outer loops turn one way, holes the other"


@settings(max_examples=100, deadline=None)
@given(masks(12))
def test_a_mask_in_a_larger_image_is_outlined_in_its_place(bits):
    padded = np.pad(bits, ((3, 2), (1, 5)))
    (mask,) = rle.encode_masks(padded[None])
    parts = polygons.trace_rle(mask, "borders")
    loops = [polygons.bridge_holes(part) for part in parts]
    np.testing.assert_array_equal(_filled(loops, padded.shape), padded)


def test_an_empty_mask_has_no_outline():
    bits = np.zeros((4, 5), bool)
    assert polygons.trace(bits, "borders") == []
    assert polygons.trace_rle(rle.encode_masks(bits[None])[0], "centres") == []


def test_corners_are_as_few_as_a_shape_needs():
    (square,) = _loops(np.ones((30, 40), bool), "borders")
    assert sorted(map(tuple, square.tolist())) == [(0, 0), (0, 30), (40, 0), (40, 30)]


@pytest.mark.parametrize("name", SHAPES)
def test_joined_parts_are_the_mask_and_thin_bridges(name):
    bits = np.pad(SHAPES[name], 2)
    parts = _loops(bits, "centres")
    drawn = _drawn([polygons.bridge_parts(parts)], bits.shape)
    assert drawn[bits].all()
    n_bridged = int((drawn & ~bits).sum())
    assert n_bridged <= 8 * (len(parts) - 1), "bridges are short here"


def test_a_bridge_between_two_parts_is_the_line_between_them():
    bits = np.zeros((9, 20), bool)
    bits[2:7, 1:5] = bits[2:7, 12:18] = True
    drawn = _drawn([polygons.bridge_parts(_loops(bits, "centres"))], bits.shape)
    extra = drawn & ~bits
    assert extra.sum() == 7
    assert extra[:, 5:12].any(axis=0).all()


def test_fewer_points_stay_within_the_tolerance():
    rows, columns = np.ogrid[:100, :120]
    bits = (rows - 50) ** 2 / 40**2 + (columns - 60) ** 2 / 50**2 < 1
    (exact,) = _loops(bits, "borders")
    simple = polygons.simplify(exact, 0.75)
    assert len(simple) < 0.6 * len(exact)
    again = _filled([simple], bits.shape)
    assert (again & bits).sum() / (again | bits).sum() > 0.99
    np.testing.assert_array_equal(polygons.simplify(exact, 0), exact)


def test_what_would_become_a_line_stays():
    (thin,) = _loops(SHAPES["horizontal line"], "borders")
    np.testing.assert_array_equal(polygons.simplify(thin, 5), thin)
