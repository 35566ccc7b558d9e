"""How each published architecture, and the built-in one, is put together.

Sources: `segment_anything/build_sam.py`, `mobile_sam/build_sam.py`.
"""

from collections.abc import Sequence
from functools import partial

from torch import nn

from amg.models.image_encoder_vit import ImageEncoderViT
from amg.models.mask_decoder import MaskDecoder
from amg.models.prompt_encoder import PromptEncoder
from amg.models.sam import SAMModel
from amg.models.tiny_vit import TinyViT
from amg.models.two_way_transformer import TwoWayTransformer

_EMBED_DIM = 256


def build_sam_vit(
    embed_dim: int, depth: int, num_heads: int, global_attn_indexes: Sequence[int]
) -> SAMModel:
    """SAM with a ViT image encoder at 1024 pixels."""
    encoder = ImageEncoderViT(
        embed_dim=embed_dim,
        depth=depth,
        num_heads=num_heads,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=14,
        global_attn_indexes=global_attn_indexes,
    )
    return _assemble(encoder, imgsz=1024, decoder_mlp_dim=2048)


def build_mobile_sam() -> SAMModel:
    """MobileSAM: TinyViT-5M at 1024 pixels, and SAM's decoder."""
    encoder = TinyViT(
        img_size=1024,
        embed_dims=(64, 128, 160, 320),
        depths=(2, 2, 6, 2),
        num_heads=(2, 4, 5, 10),
        window_sizes=(7, 7, 14, 7),
        drop_path_rate=0.0,
    )
    return _assemble(encoder, imgsz=1024, decoder_mlp_dim=2048)


def build_nano(imgsz: int = 448) -> SAMModel:
    """The built-in model: MobileSAM's architecture, smaller, without its classification head.

    448 pixels fill the encoder's windows (7 and 14 cells) without padding.
    """
    encoder = TinyViT(
        img_size=imgsz,
        num_classes=0,
        embed_dims=(32, 64, 128, 320),
        depths=(1, 1, 3, 1),
        num_heads=(1, 2, 4, 10),
        window_sizes=(7, 7, 14, 7),
        drop_path_rate=0.0,
    )
    return _assemble(encoder, imgsz=imgsz, decoder_mlp_dim=512)


def _assemble(encoder: ImageEncoderViT | TinyViT, imgsz: int, decoder_mlp_dim: int) -> SAMModel:
    return SAMModel(
        encoder,
        PromptEncoder(
            embed_dim=_EMBED_DIM,
            image_embedding_size=(imgsz // 16, imgsz // 16),
            input_image_size=(imgsz, imgsz),
            mask_in_chans=16,
        ),
        MaskDecoder(
            transformer_dim=_EMBED_DIM,
            transformer=TwoWayTransformer(
                depth=2, embedding_dim=_EMBED_DIM, num_heads=8, mlp_dim=decoder_mlp_dim
            ),
        ),
    )
