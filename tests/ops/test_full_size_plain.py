import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything.utils import amg as original

from amg.ops.full_size_plain import mask_boxes, stability_score


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
