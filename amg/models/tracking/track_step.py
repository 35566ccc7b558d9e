"""SAM 2 on one frame of a video: remember, answer the prompts, memorise.

Source: `sam2/modeling/sam2_base.py`. B is the number of objects in the frame; tokens are sequence
first, (h * w, B, C), as `memories` takes them.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from amg.models.modules.prompt_encoder import PADDING_LABEL, PromptEncoder
from amg.models.modules.sam2_mask_decoder import SAM2MaskDecoder
from amg.models.tracking.memories import (
    Tokens,
    TrackingOptions,
    condition_on_memories,
    condition_on_nothing,
    encode_new_memory,
    to_map,
)
from amg.models.tracking.memory_bank import FrameOutputs, Moment, open_bank
from amg.models.tracking.sam_heads import AbsentObject, HeadsOutput, best_masks, mask_as_output


class TracksObjects(nn.Module):
    """The steps of a frame; `SAM2Model` makes the parts that they use."""

    tracking: TrackingOptions
    image_size: int
    sam_prompt_encoder: PromptEncoder
    sam_mask_decoder: SAM2MaskDecoder
    memory_attention: nn.Module | None
    memory_encoder: nn.Module | None
    maskmem_tpos_enc: nn.Parameter | None
    no_mem_embed: nn.Parameter
    no_mem_pos_enc: nn.Parameter | None
    no_obj_embed_spatial: nn.Parameter | None
    mask_downsample: nn.Conv2d | None
    no_obj_ptr: nn.Parameter | None
    obj_ptr_proj: nn.Module | None
    obj_ptr_tpos_proj: nn.Module | None
    fixed_no_obj_ptr: bool
    soft_no_obj_ptr: bool
    use_mask_input_as_output_without_sam: bool

    def track_step(
        self,
        frame_idx: int,
        is_init_cond_frame: bool,
        current_vision_feats: Sequence[torch.Tensor],
        current_vision_pos_embeds: Sequence[torch.Tensor],
        feat_sizes: Sequence[tuple[int, int]],
        point_inputs: dict[str, torch.Tensor] | None,
        mask_inputs: torch.Tensor | None,
        output_dict: FrameOutputs,
        num_frames: int | None,
        track_in_reverse: bool = False,
        run_mem_encoder: bool = True,
        prev_sam_mask_logits: torch.Tensor | None = None,
    ) -> dict[str, Any]:
        """Segment the objects of a frame, from prompts or from what past frames remember of them.

        current_vision_feats and current_vision_pos_embeds: of each level, fine to coarse, tokens
        (h * w, B, C), their sizes in `feat_sizes`. point_inputs: `point_coords` (B, P, 2) in pixels
        and `point_labels` (B, P). mask_inputs (B, 1, H, W), from 0 to 1 or bool. output_dict: the
        frames that are done. prev_sam_mask_logits (B, 1, h, w): of an earlier answer, to be
        corrected by points. Raises ValueError for these without points, or with masks.

        Gives `pred_masks` (B, 1, h, w) and `pred_masks_high_res` (B, 1, H, W) as logits,
        `obj_ptr` (B, C), `object_score_logits` (B, 1) if not in training, `maskmem_features` and
        `maskmem_pos_enc` (None without `run_mem_encoder`), and the prompts again.
        """
        if prev_sam_mask_logits is not None and (point_inputs is None or mask_inputs is not None):
            raise ValueError("prev_sam_mask_logits needs point_inputs alone")
        options = self.tracking.for_training() if self.training else self.tracking
        *high_res, pix_feat = (
            to_map(tokens, size)
            for tokens, size in zip(current_vision_feats, feat_sizes, strict=True)
        )
        if mask_inputs is not None and self.use_mask_input_as_output_without_sam:
            output = self._take_masks(pix_feat, high_res, mask_inputs)
        else:
            conditioned = self._remember(
                Tokens(current_vision_feats[-1], current_vision_pos_embeds[-1]),
                is_init_cond_frame,
                Moment(frame_idx, num_frames, track_in_reverse),
                output_dict,
                options,
            )
            n_points = 0 if point_inputs is None else point_inputs["point_labels"].shape[1]
            output = self._answer(
                to_map(conditioned, feat_sizes[-1]),
                high_res,
                point_inputs,
                mask_inputs if prev_sam_mask_logits is None else prev_sam_mask_logits,
                options.is_multimask(is_init_cond_frame, n_points),
            )
        result = {"point_inputs": point_inputs, "mask_inputs": mask_inputs}
        result |= self._published(output)
        if run_mem_encoder and options.num_maskmem > 0:
            return result | self._memorise(pix_feat, output, point_inputs is not None, options)
        return result | {"maskmem_features": None, "maskmem_pos_enc": None}

    def _remember(
        self,
        frame: Tokens,
        is_init_cond_frame: bool,
        moment: Moment,
        output_dict: FrameOutputs,
        options: TrackingOptions,
    ) -> torch.Tensor:
        """The frame's tokens with what is remembered at that moment, (h * w, B, C)."""
        if options.num_maskmem == 0:
            return frame.features
        memory_attention = _present(self.memory_attention)
        if is_init_cond_frame:
            return condition_on_nothing(
                frame,
                options,
                memory_attention=memory_attention,
                no_mem_embed=self.no_mem_embed,
                no_mem_pos_enc=_present(self.no_mem_pos_enc),
            )
        return condition_on_memories(
            frame,
            open_bank(moment, output_dict, options.max_cond_frames_in_attn),
            options,
            memory_attention=memory_attention,
            maskmem_tpos_enc=_present(self.maskmem_tpos_enc),
            obj_ptr_tpos_proj=_present(self.obj_ptr_tpos_proj),
        )

    def _answer(
        self,
        features: torch.Tensor,
        high_res: Sequence[torch.Tensor],
        point_inputs: dict[str, torch.Tensor] | None,
        mask_inputs: torch.Tensor | None,
        multimask_output: bool,
    ) -> HeadsOutput:
        """What the decoder makes of features (B, C, h, w) and of prompts.

        Without points there is one that is none; masks may have any size.
        """
        if point_inputs is None:
            coords = features.new_zeros(len(features), 1, 2)
            labels = torch.full(coords.shape[:2], PADDING_LABEL, device=features.device)
        else:
            coords, labels = point_inputs["point_coords"], point_inputs["point_labels"]
        sparse, dense = self.sam_prompt_encoder(
            (coords, labels), None, None if mask_inputs is None else self._as_prompt(mask_inputs)
        )
        positions = self.sam_prompt_encoder.get_dense_pe()
        masks = self.sam_mask_decoder(
            features, positions, sparse, dense, multimask_output, high_res
        )
        return best_masks(
            *masks,
            size_hw=(self.image_size, self.image_size),
            obj_ptr_proj=_present(self.obj_ptr_proj),
            absent=self._absent_object(),
        )

    def _published(self, output: HeadsOutput) -> dict[str, Any]:
        """The heads' output under the names of the published model."""
        named = {
            "pred_masks": output.low_res_masks,
            "pred_masks_high_res": output.high_res_masks,
            "obj_ptr": output.obj_ptr,
        }
        if not self.training:
            named["object_score_logits"] = output.object_score_logits
        return named

    def _memorise(
        self,
        pix_feat: torch.Tensor,
        output: HeadsOutput,
        is_mask_from_pts: bool,
        options: TrackingOptions,
    ) -> dict[str, Any]:
        """What later frames remember of features (B, C, h, w) and of the masks found in them."""
        memory = encode_new_memory(
            pix_feat,
            output.high_res_masks,
            output.object_score_logits,
            is_mask_from_pts,
            options,
            memory_encoder=_present(self.memory_encoder),
            no_obj_embed_spatial=self.no_obj_embed_spatial,
        )
        return {
            "maskmem_features": memory["vision_features"],
            "maskmem_pos_enc": memory["vision_pos_enc"],
        }

    def _take_masks(
        self, features: torch.Tensor, high_res: Sequence[torch.Tensor], mask_inputs: torch.Tensor
    ) -> HeadsOutput:
        """Take masks (B, 1, H, W) as they are; the decoder gives the objects' pointers alone."""
        obj_ptr = features.new_zeros(features.shape[:2])
        if self.tracking.use_obj_ptrs_in_encoder:
            small = _present(self.mask_downsample)(mask_inputs.to(features.dtype))
            obj_ptr = self._answer(features, high_res, None, small, False).obj_ptr
        return mask_as_output(mask_inputs, obj_ptr, self._absent_object())

    def _as_prompt(self, masks: torch.Tensor) -> torch.Tensor:
        """Masks (B, 1, H, W) at the size that the prompt encoder takes."""
        h, w = self.sam_prompt_encoder.image_embedding_size
        if masks.shape[-2:] == (4 * h, 4 * w):
            return masks
        # The original resizes in float32, whatever the masks are.
        dtype = torch.promote_types(self.no_mem_embed.dtype, torch.float32)
        return F.interpolate(
            masks.to(dtype), (4 * h, 4 * w), mode="bilinear", align_corners=False, antialias=True
        )

    def _absent_object(self) -> AbsentObject | None:
        if self.no_obj_ptr is None:
            return None
        return AbsentObject(self.no_obj_ptr, self.fixed_no_obj_ptr, self.soft_no_obj_ptr)


_Part = TypeVar("_Part")


def _present(part: _Part | None) -> _Part:
    """A part that only videos need. Raises ValueError in a model of images."""
    if part is None:
        raise ValueError("this model was loaded without its memory, and cannot track objects")
    return part
