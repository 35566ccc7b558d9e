"""What SAM 2 gives for a frame: a mask of each object, and a pointer to it.

Source: `sam2/modeling/sam2_base.py`, `_forward_sam_heads` after the mask decoder and
`_use_mask_as_output`. B is the number of objects in the frame, M that of masks for each.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

NO_OBJ_SCORE = -1024.0  # the logits of a mask whose object is not in the frame
# Logits of pixels inside and outside of a given mask: almost 1 and 0 after a sigmoid.
_MASK_SCALE, _MASK_BIAS = 20.0, -10.0
_LOW_RES_STRIDE = 4  # of low-res masks, in pixels of the model's input


@dataclass(frozen=True, slots=True)
class HeadsOutput:
    """The objects of a frame.

    Masks as logits, (B, 1, h, w) and (B, 1, H, W), `obj_ptr` (B, C), `object_score_logits` (B, 1).
    """

    low_res_masks: torch.Tensor
    high_res_masks: torch.Tensor
    obj_ptr: torch.Tensor
    object_score_logits: torch.Tensor


@dataclass(frozen=True, slots=True)
class AbsentObject:
    """How the pointer of an object that is not in the frame is made.

    no_obj_ptr (1, C) takes the place of the object's own with `fixed`, and is added without.
    With `soft`, presence is a probability, not a yes or no.
    """

    no_obj_ptr: torch.Tensor
    fixed: bool = False
    soft: bool = False

    def mark(self, obj_ptr: torch.Tensor, presence: torch.Tensor) -> torch.Tensor:
        """Mark pointers (B, C) by presence (B, 1), from 0 to 1."""
        own = presence * obj_ptr if self.fixed else obj_ptr
        return own + (1 - presence) * self.no_obj_ptr


def best_masks(
    multimasks: torch.Tensor,
    ious: torch.Tensor,
    sam_output_tokens: torch.Tensor,
    object_score_logits: torch.Tensor,
    *,
    size_hw: tuple[int, int],
    obj_ptr_proj: nn.Module,
    absent: AbsentObject | None,
) -> HeadsOutput:
    """Take the mask of highest predicted IoU, and its token for a pointer.

    multimasks (B, M, h, w) as logits, ious (B, M), sam_output_tokens (B, M or 1, C),
    object_score_logits (B, 1): what the decoder gives. `size_hw` is the model's input's.
    """
    each, best = torch.arange(len(ious), device=ious.device), ious.argmax(dim=1)
    is_present = object_score_logits > 0
    masks = multimasks[each, best].unsqueeze(1).where(is_present[..., None, None], NO_OBJ_SCORE)
    # Half precisions end here: upsampled logits and memories are made in float32.
    masks = masks.to(_at_least_float32(masks))
    obj_ptr = obj_ptr_proj(sam_output_tokens[each, best if sam_output_tokens.shape[1] > 1 else 0])
    if absent is not None:
        presence = object_score_logits.sigmoid() if absent.soft else is_present
        obj_ptr = absent.mark(obj_ptr, presence.to(obj_ptr.dtype))
    return HeadsOutput(
        low_res_masks=masks,
        high_res_masks=F.interpolate(masks, size_hw, mode="bilinear", align_corners=False),
        obj_ptr=obj_ptr,
        object_score_logits=object_score_logits,
    )


def mask_as_output(
    mask_inputs: torch.Tensor, obj_ptr: torch.Tensor, absent: AbsentObject | None
) -> HeadsOutput:
    """Give masks (B, 1, H, W), 0 to 1 or bool, as if they had been predicted, without doubt.

    `obj_ptr` (B, C) comes from the decoder, prompted with the masks. An empty mask is that of an
    object that is not in the frame, whatever the decoder says.
    """
    masks = mask_inputs.to(_at_least_float32(obj_ptr))
    high_res = masks * _MASK_SCALE + _MASK_BIAS
    h, w = (n // _LOW_RES_STRIDE for n in masks.shape[-2:])
    low_res = F.interpolate(high_res, (h, w), mode="bilinear", align_corners=False, antialias=True)
    presence = (masks > 0).flatten(1).any(dim=1, keepdim=True).to(masks.dtype)
    return HeadsOutput(
        low_res_masks=low_res,
        high_res_masks=high_res,
        obj_ptr=obj_ptr if absent is None else absent.mark(obj_ptr, presence.to(obj_ptr.dtype)),
        object_score_logits=presence * _MASK_SCALE + _MASK_BIAS,
    )


def _at_least_float32(x: torch.Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
