import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything.utils import amg as original

from amg.ops.boxes import mask_boxes, touches_crop_edge
from amg.ops.stability import stability_score


def _logits(seed, shape=(5, 13, 17)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3


@settings(deadline=None)
@given(st.integers(0, 500), st.floats(-12, 12))
def test_boxes_are_the_originals(seed, threshold):
    masks = _logits(seed) > threshold
    assert torch.equal(mask_boxes(masks), original.batched_mask_to_box(masks))


@settings(deadline=None)
@given(st.integers(0, 500), st.floats(-2, 2), st.floats(0, 4))
def test_stability_is_the_originals(seed, threshold, offset):
    logits = _logits(seed)
    torch.testing.assert_close(
        stability_score(logits, threshold, offset),
        original.calculate_stability_score(logits, threshold, offset),
        equal_nan=True,
        rtol=0,
        atol=0,
    )


def test_stability_of_values_exactly_at_the_thresholds():
    logits = torch.tensor([[[1.0, 1.5, -1.0, -0.5]]])  # above +1: one; above -1: three
    assert stability_score(logits, 0.0, 1.0).item() == np.float32(1 / 3)


def test_stability_without_any_pixel_is_not_a_number():
    assert stability_score(torch.full((1, 2, 2), -9.0), 0.0, 1.0).isnan().all()


@settings(deadline=None)
@given(st.integers(0, 500))
def test_edges_are_the_originals(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(60, 200, 2).tolist()
    x0, y0 = rng.integers(0, 40, 2).tolist()
    crop = (x0, y0, int(rng.integers(x0 + 10, width + 1)), int(rng.integers(y0 + 10, height + 1)))
    corners = rng.integers(0, 90, (30, 2, 2))
    boxes = torch.from_numpy(np.concatenate([corners.min(1), corners.max(1)], axis=1))
    expected = original.is_box_near_crop_edge(boxes, list(crop), [0, 0, width, height])
    assert torch.equal(touches_crop_edge(boxes, crop, (height, width)), expected)
