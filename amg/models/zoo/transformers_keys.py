"""The key names of `transformers`, turned into those of the published checkpoints.

Sources: `transformers/models/sam`, `sam2` and `sam2_video`; the published names are those of
`segment_anything/modeling` and `sam2/modeling`. Only names differ, but for one table: SAM 2's
point embeddings are one tensor here, and one for each label there.
"""

import re
from collections.abc import Iterable, Mapping

import torch

from amg.errors import CheckpointError

_POSITIONS = r"(?:shared_image_embedding|prompt_encoder\.shared_embedding)\.positional_embedding$"
_MLP = (
    r"(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head|pred_obj_score_head)"
    r"|object_pointer_proj)"
)

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


# What SAM 2 has beside SAM's parts, or under other names. After the rules above, all of these are
# applied in turn.
_SAM2_RULES = (
    (r"^image_encoder\.backbone\.", r"image_encoder.trunk."),
    (r"^image_encoder\.trunk\.patch_embed\.projection\.", r"image_encoder.trunk.patch_embed.proj."),
    (r"^image_encoder\.neck\.convs\.(\d+)\.", r"image_encoder.neck.convs.\1.conv."),
    (r"^(prompt_encoder|mask_decoder)\.", r"sam_\1."),
    (r"\.mlp\.proj_in\.", r".mlp.layers.0."),
    (r"\.mlp\.proj_out\.", r".mlp.layers.1."),
    (r"\.o_proj\.", r".out_proj."),
    # Convolution, norm, activation: three numbers a layer, and the last convolution after four.
    (
        r"^memory_encoder\.mask_downsampler\.layers\.(\d+)\.(conv|layer_norm)\.",
        lambda m: f"memory_encoder.mask_downsampler.encoder.{3 * int(m[1]) + (m[2] != 'conv')}.",
    ),
    (r"\.mask_downsampler\.final_conv\.", r".mask_downsampler.encoder.12."),
    (r"^memory_encoder\.feature_projection\.", r"memory_encoder.pix_feat_proj."),
    (r"^memory_encoder\.projection\.", r"memory_encoder.out_proj."),
    (r"^memory_encoder\.memory_fuser\.", r"memory_encoder.fuser."),
    (r"(\.fuser\.layers\.\d+)\.scale$", r"\1.gamma"),
    (r"(\.fuser\.layers\.\d+)\.depthwise_conv\.", r"\1.dwconv."),
    (r"(\.fuser\.layers\.\d+)\.pointwise_conv(\d)\.", r"\1.pwconv\2."),
    (r"\.layer_norm(\d?)\.", r".norm\1."),
    (r"^object_pointer_proj\.", r"obj_ptr_proj."),
    (r"^temporal_positional_encoding_projection_layer\.", r"obj_ptr_tpos_proj."),
    (r"^memory_temporal_positional_encoding$", r"maskmem_tpos_enc"),
    (r"^no_memory_embedding$", r"no_mem_embed"),
    (r"^no_memory_positional_encoding$", r"no_mem_pos_enc"),
    (r"^no_object_pointer$", r"no_obj_ptr"),
    (r"^occlusion_spatial_embedding_parameter$", r"no_obj_embed_spatial"),
)
_SAM2_POINTS = "prompt_encoder.point_embed.weight"


def is_transformers_layout(keys: Iterable[str]) -> bool:
    """Whether these are the keys of a `transformers` SamModel, Sam2Model or Sam2VideoModel."""
    return any(
        key.startswith(("vision_encoder.layers.", "vision_encoder.backbone.")) for key in keys
    )


def published_key(key: str, *, sam2: bool = False) -> str:
    """The published name of a `transformers` key."""
    for pattern, replacement in _RULES:
        renamed, n_matches = re.subn("^" + pattern, replacement, key)
        if n_matches:
            key = renamed
            break
    if sam2:
        for pattern, replacement in _SAM2_RULES:
            key = re.sub(pattern, replacement, key)
    return key


def to_published_layout(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename a `transformers` state dict; the tensors are the same objects, or views of them.

    Raises CheckpointError where two keys that should be one hold different tensors.
    """
    sam2 = any(key.startswith("vision_encoder.backbone.") for key in state)
    published: dict[str, torch.Tensor] = {}
    for key, tensor in (_one_point_a_key(state) if sam2 else state).items():
        renamed = published_key(key, sam2=sam2)
        twin = published.setdefault(renamed, tensor)
        same = twin is tensor or (twin.dtype == tensor.dtype and torch.equal(twin, tensor))
        if not same:
            raise CheckpointError(f"two keys, {key} the last, hold different values of {renamed}")
    return published


def _one_point_a_key(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """SAM 2's table of point embeddings, (labels, C), as SAM's: one (1, C) for each label."""
    split = dict(state)
    table = split.pop(_SAM2_POINTS, torch.empty(0, 1))
    for label, row in enumerate(table.split(1)):
        split[f"prompt_encoder.point_embed.{label}.weight"] = row
    return split
