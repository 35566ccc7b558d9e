import numpy as np
import pytest

from amg.evaluate.parity import compare_annotations, count_found
from amg.ops import rle


def _annotation(bits, **changes):
    annotation = {
        "segmentation": rle.to_coco(rle.encode_masks(bits[None])[0]),
        "area": int(bits.sum()),
        "bbox": [0.0, 0.0, 39.0, 39.0],
        "predicted_iou": 0.9,
        "stability_score": 0.97,
        "point_coords": [[3.5, 4.5]],
        "crop_box": [0, 0, 50, 40],
    }
    return {**annotation, **changes}


BITS = np.zeros((40, 50), dtype=bool)
BITS[:, :40] = True


def test_equal_results_are_exact():
    annotations = [_annotation(BITS), _annotation(~BITS)]
    report = compare_annotations(annotations, annotations)
    assert report.exact
    assert report.n_identical == 2


def test_one_pixel_of_1600_at_the_threshold_is_accepted():
    flipped = BITS.copy()
    flipped[5, 40] = True
    stability = (
        0.97 - 0.97 / 1600
    )  # the pixel in the union of stability, but not in what they share
    report = compare_annotations(
        [_annotation(BITS)], [_annotation(flipped, stability_score=stability)]
    )
    assert report.exact
    assert report.n_identical == 0
    assert report.min_iou == pytest.approx(1600 / 1601)


@pytest.mark.parametrize(
    "changes",
    [
        {"predicted_iou": 0.9002},
        {"stability_score": 0.97 - 2 / 1600},
        {"stability_score": float("nan")},
        {"bbox": [2.0, 0.0, 39.0, 39.0]},
        {"point_coords": [[3.5, 5.5]]},
        {"point_coords": []},
        {"point_coords": [[3.5, 4.5], [1.0, 2.0]]},
        {"crop_box": [0, 0, 50, 39]},
    ],
)
def test_any_other_difference_is_not_exact(changes):
    assert not compare_annotations([_annotation(BITS)], [_annotation(BITS, **changes)]).exact


def test_other_pixels_count_or_order_are_not_exact():
    first, second = _annotation(BITS), _annotation(~BITS)
    two_pixels = BITS.copy()
    two_pixels[5:7, 40] = True
    assert not compare_annotations([first], [_annotation(two_pixels)]).exact
    assert not compare_annotations([first, second], [first]).exact
    assert not compare_annotations([first, second], [second, first]).exact


def test_found_are_masks_with_a_close_one_anywhere():
    close, far = BITS.copy(), BITS.copy()
    close[:3] = False  # IoU 37 / 40
    far[:5] = False  # 35 / 40
    reference = [_annotation(BITS), _annotation(~BITS)]
    assert count_found(reference, [_annotation(~BITS), _annotation(close)]) == 2
    assert count_found(reference, [_annotation(far)]) == 0
    assert count_found(reference, [_annotation(BITS)] * 3) == 1
    assert count_found(reference, []) == count_found([], reference) == 0
