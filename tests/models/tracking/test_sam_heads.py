"""What the videos of `test_track_step.py` do not show of a frame's answers."""

import torch
from torch import nn

from amg.models.tracking.sam_heads import best_masks, mask_as_output
from tests.models.parity import random

N_OBJECTS, DIM = 3, 8


def test_half_precision_logits_are_upsampled_in_float32():
    low_res = random(N_OBJECTS, 1, 4, 4).bfloat16()
    given = torch.ones(N_OBJECTS, 1), random(N_OBJECTS, 1, DIM), torch.ones(N_OBJECTS, 1)
    rest = {"size_hw": (16, 16), "obj_ptr_proj": nn.Identity(), "absent": None}
    ours, expected = (
        best_masks(low_res, *given, **rest),
        best_masks(low_res.float(), *given, **rest),
    )
    assert torch.equal(ours.high_res_masks, expected.high_res_masks)


def test_a_mask_as_output_may_be_bool():
    masks = random(N_OBJECTS, 1, 16, 16) > 0
    pointers = random(N_OBJECTS, DIM)
    ours, expected = (mask_as_output(x, pointers, None) for x in (masks, masks.float()))
    assert torch.equal(ours.low_res_masks, expected.low_res_masks)
    assert torch.equal(ours.high_res_masks, expected.high_res_masks)
