"""The steps by which SAM 2 tracks objects: remember, attend to what is remembered, memorise.

Sources: "SAM 2: Segment Anything in Images and Videos" (2024), section 4;
`sam2/modeling/sam2_base.py`. Every step is given the modules and learned embeddings that it uses,
so that a model is left to hold them. Tokens are sequence first, (L, B, C), for B objects; a map has
L = h * w.
"""

import dataclasses
from typing import NamedTuple

import torch
from torch import nn

from amg.models.modules.memory_encoder import EncodedMemory
from amg.models.modules.position_encoding import encode_line
from amg.models.tracking.memory_bank import ALL_FRAMES, FrameMemory, MemoryBank

_OVERLAP_LOGIT = -10.0  # at most, where another object has the higher logit


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrackingOptions:
    """The options of the published model that these steps use, by its names and defaults."""

    num_maskmem: int = 7
    max_cond_frames_in_attn: int = ALL_FRAMES
    memory_temporal_stride_for_eval: int = 1
    directly_add_no_mem_embed: bool = False
    use_obj_ptrs_in_encoder: bool = False
    max_obj_ptrs_in_encoder: int = 16
    add_tpos_enc_to_obj_ptrs: bool = True
    proj_tpos_enc_in_obj_ptrs: bool = False
    use_signed_tpos_enc_to_obj_ptrs: bool = False
    only_obj_ptrs_in_the_past_for_eval: bool = False
    sigmoid_scale_for_mem_enc: float = 1.0
    sigmoid_bias_for_mem_enc: float = 0.0
    binarize_mask_from_pts_for_mem_enc: bool = False
    non_overlap_masks_for_mem_enc: bool = False
    multimask_output_in_sam: bool = False
    multimask_output_for_tracking: bool = False
    multimask_min_pt_num: int = 1
    multimask_max_pt_num: int = 1

    def __post_init__(self) -> None:
        if self.proj_tpos_enc_in_obj_ptrs and not self.add_tpos_enc_to_obj_ptrs:
            raise ValueError("proj_tpos_enc_in_obj_ptrs=True needs add_tpos_enc_to_obj_ptrs=True")

    def for_training(self) -> "TrackingOptions":
        """The same without what the published model does in evaluation only."""
        return dataclasses.replace(
            self,
            memory_temporal_stride_for_eval=1,
            only_obj_ptrs_in_the_past_for_eval=False,
            binarize_mask_from_pts_for_mem_enc=False,
            non_overlap_masks_for_mem_enc=False,
        )

    def is_multimask(self, is_init_cond_frame: bool, n_points: int) -> bool:
        """Whether the decoder is to give several masks of an object prompted with n points."""
        return (
            self.multimask_output_in_sam
            and (is_init_cond_frame or self.multimask_output_for_tracking)
            and self.multimask_min_pt_num <= n_points <= self.multimask_max_pt_num
        )


class Tokens(NamedTuple):
    """Features (L, B, C) and positions of the same shape."""

    features: torch.Tensor
    positions: torch.Tensor


def to_tokens(maps: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w) to (h * w, B, C)."""
    return maps.flatten(2).permute(2, 0, 1)


def to_map(tokens: torch.Tensor, size_hw: tuple[int, int]) -> torch.Tensor:
    """(h * w, B, C) to (B, C, h, w)."""
    return tokens.permute(1, 2, 0).unflatten(2, size_hw)


def condition_on_memories(
    frame: Tokens,
    bank: MemoryBank,
    options: TrackingOptions,
    *,
    memory_attention: nn.Module,
    maskmem_tpos_enc: torch.Tensor,
    obj_ptr_tpos_proj: nn.Module,
) -> torch.Tensor:
    """Let the frame's tokens attend to those of the frames it remembers: (L, B, C).

    maskmem_tpos_enc (num_maskmem, 1, 1, C_mem) are the temporal positions of memories;
    `obj_ptr_tpos_proj` makes those of object pointers from sines.
    """
    device = frame.features.device
    frames = bank.frames(options.num_maskmem, options.memory_temporal_stride_for_eval)
    parts = [_memory_tokens(output, maskmem_tpos_enc[slot], device) for slot, output in frames]
    pointers = _recall_pointers(bank, options)
    n_pointer_tokens = 0
    if pointers:
        mem_dim = maskmem_tpos_enc.shape[-1]
        tokens = _pointer_tokens(pointers, options, mem_dim, obj_ptr_tpos_proj)
        n_pointer_tokens = len(tokens.features)
        parts.append(tokens)
    memory, memory_pos = (torch.cat(column) for column in zip(*parts, strict=True))
    return memory_attention(
        curr=frame.features,
        curr_pos=frame.positions,
        memory=memory,
        memory_pos=memory_pos,
        num_obj_ptr_tokens=n_pointer_tokens,
    )


def condition_on_nothing(
    frame: Tokens,
    options: TrackingOptions,
    *,
    memory_attention: nn.Module,
    no_mem_embed: torch.Tensor,
    no_mem_pos_enc: torch.Tensor,
) -> torch.Tensor:
    """Give the tokens (L, B, C) of a first frame, which has nothing to remember.

    no_mem_embed and no_mem_pos_enc, (1, 1, C), stand for the memory that is not there.
    """
    if options.directly_add_no_mem_embed:
        return frame.features + no_mem_embed
    n_objects = frame.features.shape[1]
    return memory_attention(
        curr=frame.features,
        curr_pos=frame.positions,
        memory=no_mem_embed.expand(-1, n_objects, -1),
        memory_pos=no_mem_pos_enc.expand(-1, n_objects, -1),
        num_obj_ptr_tokens=0,
    )


def encode_new_memory(
    pix_feat: torch.Tensor,
    high_res_masks: torch.Tensor,
    object_score_logits: torch.Tensor,
    is_mask_from_pts: bool,
    options: TrackingOptions,
    *,
    memory_encoder: nn.Module,
    no_obj_embed_spatial: torch.Tensor | None = None,
) -> EncodedMemory:
    """Encode what later frames remember of features (B, C, h, w) and mask logits (B, 1, H, W).

    no_obj_embed_spatial (1, C_mem) is added to the memory of objects that are not in the frame, by
    object_score_logits (B, 1).
    """
    if options.non_overlap_masks_for_mem_enc:
        high_res_masks = without_overlaps(high_res_masks)
    if options.binarize_mask_from_pts_for_mem_enc and is_mask_from_pts:
        masks = (high_res_masks > 0).to(high_res_masks.dtype)
    else:
        masks = high_res_masks.sigmoid()
    masks = masks * options.sigmoid_scale_for_mem_enc + options.sigmoid_bias_for_mem_enc
    memory = memory_encoder(pix_feat, masks, skip_mask_sigmoid=True)
    if no_obj_embed_spatial is None:
        return memory
    is_absent = (object_score_logits <= 0)[..., None, None]
    embedding = no_obj_embed_spatial[..., None, None]
    return memory | {"vision_features": memory["vision_features"] + is_absent * embedding}


def without_overlaps(masks: torch.Tensor) -> torch.Tensor:
    """Leave each pixel of logits (B, 1, H, W) to the one object of the highest."""
    is_highest = masks.argmax(dim=0, keepdim=True) == torch.arange(
        len(masks), device=masks.device
    ).view(-1, 1, 1, 1)
    return masks.where(is_highest, masks.clamp(max=_OVERLAP_LOGIT))


def _memory_tokens(
    output: FrameMemory, temporal_position: torch.Tensor, device: torch.device
) -> Tokens:
    """The memory of a frame, which may be kept on another device, and where and when it was."""
    features, positions = output["maskmem_features"], output["maskmem_pos_enc"]
    if features is None or positions is None:
        raise ValueError("a frame to be remembered was tracked with run_mem_encoder=False")
    features, position = (x.to(device, non_blocking=True) for x in (features, positions[-1]))
    return Tokens(to_tokens(features), to_tokens(position) + temporal_position)


def _recall_pointers(
    bank: MemoryBank, options: TrackingOptions
) -> list[tuple[float, torch.Tensor]]:
    """Object pointers (B, C), and their age as a part of the highest that the video allows."""
    if not options.use_obj_ptrs_in_encoder:
        return []
    max_pointers = options.max_obj_ptrs_in_encoder
    if bank.moment.num_frames is not None:
        max_pointers = min(max_pointers, bank.moment.num_frames)
    pointers = bank.pointers(
        max_pointers,
        options.use_signed_tpos_enc_to_obj_ptrs,
        options.only_obj_ptrs_in_the_past_for_eval,
    )
    oldest = max(max_pointers - 1, 1)  # the original divides by zero in videos of one frame
    return [(age / oldest, pointer) for age, pointer in pointers]


def _pointer_tokens(
    pointers: list[tuple[float, torch.Tensor]],
    options: TrackingOptions,
    mem_dim: int,
    obj_ptr_tpos_proj: nn.Module,
) -> Tokens:
    """Cut pointers (B, C) into tokens of `mem_dim` channels, all with the position of the whole."""
    ages, vectors = zip(*pointers, strict=True)
    stacked = torch.stack(vectors)
    cut = stacked.unflatten(2, (-1, mem_dim))
    if options.add_tpos_enc_to_obj_ptrs:
        dtype = torch.promote_types(stacked.dtype, torch.float32)
        n_sines = stacked.shape[2] if options.proj_tpos_enc_in_obj_ptrs else mem_dim
        sines = encode_line(torch.tensor(ages, dtype=dtype, device=stacked.device), n_sines)
        position = obj_ptr_tpos_proj(sines.to(stacked.dtype))
    else:
        position = stacked.new_zeros(len(stacked), mem_dim)
    positions = position[:, None].expand(-1, stacked.shape[1], -1)
    return Tokens(
        cut.transpose(1, 2).flatten(0, 1), positions.repeat_interleave(cut.shape[2], dim=0)
    )
