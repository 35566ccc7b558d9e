import numpy as np

from amg import Mask
from amg.ops import rle
from amg.view.overlay import draw_overlay, draw_side_by_side, mask_colour


def _mask(bits):
    return Mask(
        rle=rle.encode_masks(bits[None])[0],
        area=int(bits.sum()),
        bbox_xywh=(0, 0, 1, 1),
        predicted_iou=0.9,
        stability_score=0.9,
        point_xy=(0, 0),
        crop_box_xywh=(0, 0, *bits.shape[::-1]),
        crop_layer=0,
        level=0,
    )


def _square(start, stop):
    bits = np.zeros((60, 80), dtype=bool)
    bits[start:stop, start:stop] = True
    return bits


def test_a_part_stays_visible_on_its_object_whatever_the_order():
    image = np.full((60, 80, 3), 128, dtype=np.uint8)
    part, whole = _mask(_square(20, 30)), _mask(_square(5, 50))
    drawn = draw_overlay(image, [part, whole])
    np.testing.assert_array_equal(drawn, draw_overlay(image, [whole, part]))
    expected = 64 + np.array(mask_colour(1)) / 2  # the second by area
    np.testing.assert_allclose(drawn[25, 25], expected, atol=1)
    assert (drawn[10, 10] != drawn[25, 25]).any()


def test_what_no_mask_covers_is_grey():
    image = np.zeros((60, 80, 3), dtype=np.uint8)
    image[..., 0] = 200
    drawn = draw_overlay(image, [_mask(_square(20, 30))])
    assert drawn[55, 75].min() == drawn[55, 75].max()
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8


def test_no_masks_and_side_by_side():
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    both = draw_side_by_side(image, [])
    np.testing.assert_array_equal(both[:, :80], image)
    assert both.shape[0] == 60
    assert both.shape[1] > 160


def test_colours_differ():
    assert len({mask_colour(i) for i in range(100)}) == 100
