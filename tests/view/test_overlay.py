import numpy as np
import pytest

from amg import Mask
from amg.ops import rle
from amg.view.overlay import beside, draw_overlay, index_colour, masks_at


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
    for masks in ([part, whole], [whole, part]):
        drawn = draw_overlay(image, masks)
        for at, mask in ((25, part), (10, whole)):
            expected = 64 + np.array(index_colour(masks.index(mask))) / 2
            np.testing.assert_allclose(drawn[at, at], expected, atol=1)


def test_a_mask_keeps_its_colour_whichever_others_are_drawn():
    image = np.full((60, 80, 3), 128, dtype=np.uint8)
    masks = [_mask(_square(5, 50)), _mask(_square(20, 30)), _mask(_square(52, 58))]
    whole = draw_overlay(image, masks)
    alone = draw_overlay(image, masks, chosen=[1])
    np.testing.assert_array_equal(alone[22:28, 22:28], whole[22:28, 22:28])
    background = draw_overlay(image, [])
    np.testing.assert_array_equal(alone[:18], background[:18])
    np.testing.assert_array_equal(alone[53:], background[53:])


def test_outlines_leave_the_image_between_them():
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    drawn = draw_overlay(image, [_mask(_square(20, 40))], outlines_only=True)
    np.testing.assert_array_equal(drawn[24:36, 24:36], image[24:36, 24:36])
    np.testing.assert_array_equal(drawn[45:], image[45:])
    on_outline = drawn[20, 25:35].astype(int) - index_colour(0)
    assert abs(on_outline).max() < 30  # what lies below shines through the soft edge


def _big_square(start, stop):
    bits = np.zeros((400, 400), dtype=bool)
    bits[start:stop, start:stop] = True
    return bits


@pytest.mark.parametrize("labels", ["id", "score"])
def test_labels_are_written_into_what_is_seen_of_a_mask(labels):
    image = np.full((400, 400, 3), 128, dtype=np.uint8)
    # Of the first only a frame is seen: its middle belongs to the second. The third is too small.
    masks = [_mask(_big_square(0, 300)), _mask(_big_square(60, 240)), _mask(_big_square(390, 396))]
    drawn, plain = draw_overlay(image, masks, labels=labels), draw_overlay(image, masks)
    written = (drawn != plain).any(axis=2)
    middle = written[140:160, 140:160]
    assert middle.any()
    assert written[:60, :300].any() or written[:300, :60].any() or written[240:300, :300].any()
    assert not written[300:].any()


def test_the_masks_at_a_pixel_smallest_first():
    masks = [_mask(_square(5, 50)), _mask(_square(20, 30)), _mask(_square(28, 40))]
    assert masks_at(masks, (25, 25)) == [1, 0]
    assert masks_at(masks, (29, 29)) == [1, 2, 0]
    assert masks_at(masks, (30, 30)) == [2, 0]
    assert masks_at(masks, (4, 5)) == []
    assert masks_at(masks, (79, 59)) == []


def test_what_no_mask_covers_is_grey():
    image = np.zeros((60, 80, 3), dtype=np.uint8)
    image[..., 0] = 200
    drawn = draw_overlay(image, [_mask(_square(20, 30))])
    assert drawn[55, 75].min() == drawn[55, 75].max()
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8


def test_no_masks_and_side_by_side():
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    both = beside(image, draw_overlay(image, []))
    np.testing.assert_array_equal(both[:, :80], image)
    assert both.shape[0] == 60
    assert both.shape[1] > 160


def test_colours_differ():
    assert len({index_colour(i) for i in range(100)}) == 100
