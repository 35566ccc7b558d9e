import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything.utils import amg as original

from amg.generate.crops import Crop, crop_image, touches_crop_edge

SIDES = st.integers(1, 400)
RATIOS = st.floats(0, 0.99)


@given(SIDES, SIDES, st.integers(0, 3), RATIOS)
def test_crops_are_the_originals(height, width, n_layers, ratio):
    boxes, layers = original.generate_crop_boxes((height, width), n_layers, ratio)
    expected = [
        (tuple(box), layer)
        for box, layer in zip(boxes, layers, strict=True)
        if box[0] < box[2] and box[1] < box[3]  # empty crops crash the original
    ]
    crops = crop_image((height, width), n_layers, ratio)
    assert [(crop.box_xyxy, crop.layer) for crop in crops] == expected


@given(SIDES, SIDES, st.integers(1, 3), RATIOS)
def test_each_layer_covers_the_image(height, width, n_layers, ratio):
    for layer in range(n_layers + 1):
        covered = np.zeros((height, width), dtype=bool)
        for crop in crop_image((height, width), n_layers, ratio):
            if crop.layer == layer:
                x0, y0, x1, y1 = crop.box_xyxy
                assert 0 <= x0 < x1 <= width
                assert 0 <= y0 < y1 <= height
                assert crop.size_hw == (y1 - y0, x1 - x0)
                covered[y0:y1, x0:x1] = True
        assert covered.all()


def test_crops_go_column_by_column():
    crops = crop_image((90, 120), 1, 0.0)
    assert [crop.box_xywh for crop in crops] == [
        (0, 0, 120, 90),
        (0, 0, 60, 45),
        (0, 45, 60, 45),
        (60, 0, 60, 45),
        (60, 45, 60, 45),
    ]


@given(SIDES, SIDES, st.integers(1, 3), RATIOS)
def test_the_image_may_be_skipped_but_not_its_crops(height, width, n_layers, ratio):
    every = crop_image((height, width), n_layers, ratio)
    crops = crop_image((height, width), n_layers, ratio, skip_image=True)
    assert crops
    assert crops == [crop for crop in every if crop.layer > 0]


@settings(deadline=None)
@given(st.integers(0, 500))
def test_edges_are_the_originals(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(60, 200, 2).tolist()
    x0, y0 = rng.integers(0, 40, 2).tolist()
    box = (x0, y0, int(rng.integers(x0 + 10, width + 1)), int(rng.integers(y0 + 10, height + 1)))
    corners = rng.integers(0, 90, (30, 2, 2))
    boxes = torch.from_numpy(np.concatenate([corners.min(1), corners.max(1)], axis=1))
    expected = original.is_box_near_crop_edge(boxes, list(box), [0, 0, width, height])
    assert torch.equal(touches_crop_edge(boxes, Crop(box, 1), (height, width)), expected)
