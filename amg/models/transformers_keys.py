"""The key names of a `transformers` SamModel, turned into those of SAM's published checkpoints.

Source: `transformers/models/sam/modeling_sam.py`; the published names are those of
`segment_anything/modeling`. Only names differ: no tensor is split, joined or transposed.
"""

import re
from collections.abc import Iterable, Mapping

import torch

from amg.errors import CheckpointError

_POSITIONS = r"(?:shared_image_embedding|prompt_encoder\.shared_embedding)\.positional_embedding$"
_MLP = r"(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head))"

# A pattern is matched from the key's start. The first that fits renames it; a key that none fits
# has the same name in both.
_RULES = (
    # One matrix under two names: a file holds either, or both.
    (_POSITIONS, r"prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"),
    (r"vision_encoder\.patch_embed\.projection\.", r"image_encoder.patch_embed.proj."),
    (r"vision_encoder\.layers\.(\d+)\.layer_norm(\d)\.", r"image_encoder.blocks.\1.norm\2."),
    (r"vision_encoder\.layers\.", r"image_encoder.blocks."),
    (r"vision_encoder\.neck\.conv1\.", r"image_encoder.neck.0."),
    (r"vision_encoder\.neck\.layer_norm1\.", r"image_encoder.neck.1."),
    (r"vision_encoder\.neck\.conv2\.", r"image_encoder.neck.2."),
    (r"vision_encoder\.neck\.layer_norm2\.", r"image_encoder.neck.3."),
    (r"vision_encoder\.", r"image_encoder."),
    (r"prompt_encoder\.point_embed\.", r"prompt_encoder.point_embeddings."),
    # The published layers are numbered with the activations between them, which have no keys.
    (r"prompt_encoder\.mask_embed\.conv1\.", r"prompt_encoder.mask_downscaling.0."),
    (r"prompt_encoder\.mask_embed\.layer_norm1\.", r"prompt_encoder.mask_downscaling.1."),
    (r"prompt_encoder\.mask_embed\.conv2\.", r"prompt_encoder.mask_downscaling.3."),
    (r"prompt_encoder\.mask_embed\.layer_norm2\.", r"prompt_encoder.mask_downscaling.4."),
    (r"prompt_encoder\.mask_embed\.conv3\.", r"prompt_encoder.mask_downscaling.6."),
    (r"(mask_decoder\.transformer\.layers\.\d+)\.layer_norm(\d)\.", r"\1.norm\2."),
    (r"(mask_decoder\.transformer)\.layer_norm_final_attn\.", r"\1.norm_final_attn."),
    (r"mask_decoder\.upscale_conv1\.", r"mask_decoder.output_upscaling.0."),
    (r"mask_decoder\.upscale_layer_norm\.", r"mask_decoder.output_upscaling.1."),
    (r"mask_decoder\.upscale_conv2\.", r"mask_decoder.output_upscaling.3."),
    # SAM's perceptrons have three layers, and `layers` counts only the one in the middle.
    (_MLP + r"\.proj_in\.", r"\1.layers.0."),
    (_MLP + r"\.layers\.0\.", r"\1.layers.1."),
    (_MLP + r"\.proj_out\.", r"\1.layers.2."),
)


def is_transformers_layout(keys: Iterable[str]) -> bool:
    """Whether these are the keys of a `transformers` SamModel (not of its Sam2Model)."""
    return any(key.startswith("vision_encoder.layers.") for key in keys)


def published_key(key: str) -> str:
    """The published name of a `transformers` key."""
    for pattern, replacement in _RULES:
        renamed, n_matches = re.subn("^" + pattern, replacement, key)
        if n_matches:
            return renamed
    return key


def to_published_layout(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename a `transformers` state dict; the tensors are the same objects.

    Raises CheckpointError where two keys that should be one hold different tensors.
    """
    published: dict[str, torch.Tensor] = {}
    for key, tensor in state.items():
        renamed = published_key(key)
        twin = published.setdefault(renamed, tensor)
        same = twin is tensor or (twin.dtype == tensor.dtype and torch.equal(twin, tensor))
        if not same:
            raise CheckpointError(f"two keys, {key} the last, hold different values of {renamed}")
    return published
