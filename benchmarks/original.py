"""The original generator, `segment-anything` 1.0, on the weights of one of our models.

The oracle of tests and benchmarks. Its own modules are used wherever it has them; TinyViT, which
it has not, is ours. Of SAM 2 the original is `sam2`, which is asked for only then.
"""

from functools import partial
from importlib import import_module
from typing import Any

from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from torch import nn

from amg.config import GeneratorConfig
from amg.models.families.sam import SAMModel
from amg.models.families.sam2 import SAM2Model
from amg.models.modules import image_encoder_vit
from amg.models.modules.fine_tiny_vit import FineTinyViT
from benchmarks.fine_features import EmbeddingOnly
from benchmarks.parameters import parameters_of


def original_generator(model: SAMModel | SAM2Model, config: GeneratorConfig) -> Any:
    """Build the original generator with a model's weights and the same parameters."""
    if isinstance(model, SAM2Model):
        sam2 = import_module("benchmarks.original_sam2")
        return sam2.original_generator(sam2.original_sam2(model), config)
    parameters = parameters_of(config, SamAutomaticMaskGenerator)
    return SamAutomaticMaskGenerator(original_sam(model), output_mode="coco_rle", **parameters)


def original_sam(model: SAMModel) -> Sam:
    """Build the original `Sam` with a model's weights."""
    encoder = model.image_encoder
    decoder = model.mask_decoder
    dim = decoder.transformer_dim
    blocks = decoder.transformer.layers
    sam = Sam(
        _original_vit(encoder)
        if isinstance(encoder, image_encoder_vit.ImageEncoderViT)
        else encoder,
        PromptEncoder(
            embed_dim=dim,
            image_embedding_size=model.prompt_encoder.image_embedding_size,
            input_image_size=model.prompt_encoder.input_image_size,
            mask_in_chans=16,
        ),
        MaskDecoder(
            transformer_dim=dim,
            transformer=TwoWayTransformer(
                depth=len(blocks),
                embedding_dim=dim,
                num_heads=blocks[0].self_attn.num_heads,
                mlp_dim=blocks[0].mlp.lin1.out_features,
            ),
            iou_head_hidden_dim=decoder.iou_prediction_head.layers[0].out_features,
        ),
    )
    sam.load_state_dict(model.state_dict(), strict=True)
    if isinstance(encoder, FineTinyViT):
        sam.image_encoder = finer = EmbeddingOnly(encoder)
        layers = sam.mask_decoder.output_upscaling
        layers[0], layers[3] = finer.added_to(layers[0], layers[3])
    return sam.eval().to(model.device)


def _original_vit(encoder: image_encoder_vit.ImageEncoderViT) -> ImageEncoderViT:
    blocks = encoder.blocks
    return ImageEncoderViT(
        img_size=encoder.img_size,
        embed_dim=encoder.patch_embed.proj.out_channels,
        depth=len(blocks),
        num_heads=blocks[0].attn.num_heads,
        out_chans=encoder.neck[0].out_channels,
        norm_layer=partial(nn.LayerNorm, eps=blocks[0].norm1.eps),
        use_rel_pos=blocks[0].attn.use_rel_pos,
        window_size=max(block.window_size for block in blocks),
        global_attn_indexes=[i for i, block in enumerate(blocks) if not block.window_size],
    )
