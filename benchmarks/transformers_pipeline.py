"""The mask-generation pipeline of `transformers`, on the weights of one of our models.

Its `SamModel` is used wherever it fits; TinyViT, which `transformers` has not, is ours. Its masks
are not the original's: stability must be above the threshold, not at it; one NMS is over all crops;
torchvision resizes the images, and points are rounded to float32.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import MaskGenerationPipeline, SamImageProcessor, SamModel
from transformers.models.sam.configuration_sam import (
    SamConfig,
    SamMaskDecoderConfig,
    SamPromptEncoderConfig,
    SamVisionConfig,
)
from transformers.models.sam.modeling_sam import SamVisionEncoderOutput

from amg.config import GeneratorConfig
from amg.errors import ConfigError
from amg.models.families.sam import SAMModel
from amg.models.modules.fine_tiny_vit import FineTinyViT
from amg.models.modules.image_encoder_vit import ImageEncoderViT
from amg.models.zoo.transformers_keys import published_key
from amg.ops import rle
from benchmarks.fine_features import EmbeddingOnly


def pipeline_generator(
    model: SAMModel, config: GeneratorConfig
) -> Callable[[np.ndarray], list[dict[str, Any]]]:
    """From images (H, W, 3) uint8 RGB to the pipeline's masks: COCO RLE and predicted IoU.

    Raises ConfigError for parameters that the pipeline cannot be given.
    """
    parameters = _parameters(model, config)
    pipeline = MaskGenerationPipeline(
        model=transformers_sam(model), image_processor=image_processor(model), device=model.device
    )

    def generate(image: np.ndarray) -> list[dict[str, Any]]:
        output = pipeline(Image.fromarray(image), output_rle_mask=True, **parameters)
        return [
            {
                "segmentation": rle.to_coco(rle.from_runs(mask["counts"], mask["size"])),
                "predicted_iou": score,
            }
            for mask, score in zip(output["rle_mask"], output["scores"].tolist(), strict=True)
        ]

    return generate


def transformers_sam(model: SAMModel) -> SamModel:
    """The `SamModel` that holds a model's own tensors; nothing is copied."""
    encoder = model.image_encoder
    is_vit = isinstance(encoder, ImageEncoderViT)
    with torch.device("meta"):
        sam = SamModel(
            SamConfig(
                vision_config=_vit_config(encoder, model) if is_vit else _no_vit_config(model),
                prompt_encoder_config=_prompt_config(model),
                mask_decoder_config=_decoder_config(model),
            )
        )
    if not is_vit:
        sam.add_module("vision_encoder", _Encoder(encoder))
    published = model.state_dict()
    state = {key: published[_published_key(key)] for key in sam.state_dict()}
    assert {_published_key(key) for key in state} == set(published)
    sam.load_state_dict(state, strict=True, assign=True)
    if isinstance(encoder, FineTinyViT):
        finer, decoder = EmbeddingOnly(encoder), sam.mask_decoder
        sam.add_module("vision_encoder", _Encoder(finer))
        first, second = finer.added_to(decoder.upscale_conv1, decoder.upscale_conv2)
        decoder.add_module("upscale_conv1", first)
        decoder.add_module("upscale_conv2", second)
    return sam.eval().requires_grad_(False)


class _Encoder(nn.Module):
    """An image encoder of ours where `SamModel` has its own."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.ours = encoder

    def forward(self, pixel_values: torch.Tensor, **_: Any) -> SamVisionEncoderOutput:
        return SamVisionEncoderOutput(last_hidden_state=self.ours(pixel_values))


def _published_key(key: str) -> str:
    ours = "vision_encoder.ours."
    if key.startswith(ours):
        return "image_encoder." + key.removeprefix(ours)
    return published_key(key)


def _parameters(model: SAMModel, config: GeneratorConfig) -> Mapping[str, Any]:
    """The pipeline's names; its one NMS gets the threshold of the NMS within crops."""
    if config.points_per_side is None:
        raise ConfigError("point_grids: the transformers pipeline makes its own grid")
    if config.crop_n_layers and config.crop_n_points_downscale_factor != 1:
        raise ConfigError(
            "crop_n_points_downscale_factor: the transformers pipeline fails on uneven grids"
        )
    if config.crop_n_layers and isinstance(model.image_encoder, FineTinyViT):
        raise ConfigError("crop_n_layers: the pipeline's crops are decoded without finer features")
    if config.min_mask_region_area:
        raise ConfigError("min_mask_region_area: the transformers pipeline cleans no masks")
    return {
        "points_per_crop": config.points_per_side,
        "points_per_batch": config.points_per_batch,
        "pred_iou_thresh": config.pred_iou_thresh,
        "stability_score_thresh": config.stability_score_thresh,
        "stability_score_offset": config.stability_score_offset,
        "crops_n_layers": config.crop_n_layers,
        "crop_overlap_ratio": config.crop_overlap_ratio,
        "crops_nms_thresh": config.box_nms_thresh,
    }


def image_processor(model: SAMModel) -> SamImageProcessor:
    """What prepares images, and prompts, for a model of that size."""
    side = model.imgsz
    return SamImageProcessor(
        size={"longest_edge": side},
        pad_size={"height": side, "width": side},
        image_mean=(model.pixel_mean / 255).flatten().tolist(),
        image_std=(model.pixel_std / 255).flatten().tolist(),
    )


def _vit_config(encoder: ImageEncoderViT, model: SAMModel) -> SamVisionConfig:
    blocks: Any = encoder.blocks
    return SamVisionConfig(
        image_size=encoder.img_size,
        hidden_size=encoder.patch_embed.proj.out_channels,
        output_channels=model.mask_decoder.transformer_dim,
        num_hidden_layers=len(blocks),
        num_attention_heads=blocks[0].attn.num_heads,
        layer_norm_eps=blocks[0].norm1.eps,
        use_rel_pos=blocks[0].attn.use_rel_pos,
        window_size=max(block.window_size for block in blocks),
        global_attn_indexes=[i for i, block in enumerate(blocks) if not block.window_size],
        mlp_dim=blocks[0].mlp.lin1.out_features,
        num_pos_feats=model.prompt_encoder.embed_dim // 2,
    )


def _no_vit_config(model: SAMModel) -> SamVisionConfig:
    return SamVisionConfig(
        image_size=model.imgsz,
        num_hidden_layers=0,
        num_pos_feats=model.prompt_encoder.embed_dim // 2,
    )


def _prompt_config(model: SAMModel) -> SamPromptEncoderConfig:
    second_convolution: Any = model.prompt_encoder.mask_downscaling[3]
    return SamPromptEncoderConfig(
        hidden_size=model.prompt_encoder.embed_dim,
        image_size=model.imgsz,
        mask_input_channels=second_convolution.out_channels,
    )


def _decoder_config(model: SAMModel) -> SamMaskDecoderConfig:
    decoder: Any = model.mask_decoder
    blocks = decoder.transformer.layers
    return SamMaskDecoderConfig(
        hidden_size=decoder.transformer_dim,
        mlp_dim=blocks[0].mlp.lin1.out_features,
        num_hidden_layers=len(blocks),
        num_attention_heads=blocks[0].self_attn.num_heads,
        num_multimask_outputs=decoder.num_mask_tokens - 1,
        iou_head_depth=len(decoder.iou_prediction_head.layers),
        iou_head_hidden_dim=decoder.iou_prediction_head.layers[0].out_features,
        # The original's; the published configurations say 1e-6, which is another model's.
        layer_norm_eps=blocks[0].norm1.eps,
    )
