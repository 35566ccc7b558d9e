"""How each published architecture, and the built-in one, is put together.

Sources: `segment_anything/build_sam.py`, `mobile_sam/build_sam.py`, `sam2/build_sam.py` and the
configurations beside it.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

from torch import nn

from amg.models.families.fine_sam import FineSAMModel
from amg.models.families.sam import SAMModel
from amg.models.families.sam2 import SAM2Model
from amg.models.modules.fine_encoder import FineEncoder
from amg.models.modules.fine_tiny_vit import FineTinyViT
from amg.models.modules.fpn_neck import FpnNeck, ImageEncoder
from amg.models.modules.hiera import Hiera
from amg.models.modules.image_encoder_vit import ImageEncoderViT
from amg.models.modules.mask_decoder import MaskDecoder
from amg.models.modules.memory_attention import MemoryAttention, MemoryAttentionLayer
from amg.models.modules.memory_encoder import MemoryEncoder
from amg.models.modules.prompt_encoder import PromptEncoder
from amg.models.modules.tiny_vit import TinyViT
from amg.models.modules.two_way_transformer import TwoWayTransformer

_EMBED_DIM = 256
_MEMORY_DIM = 64


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
    return SAMModel(*_parts(encoder, imgsz=1024, decoder_mlp_dim=2048))


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
    return SAMModel(*_parts(encoder, imgsz=1024, decoder_mlp_dim=2048))


def build_nano(imgsz: int = 448) -> FineSAMModel:
    """The built-in model: MobileSAM's architecture, smaller, with SAM 2's finer features.

    448 pixels fill the encoder's windows (7 and 14 cells) without padding.
    """
    encoder = FineTinyViT(
        img_size=imgsz,
        num_classes=0,
        embed_dims=(32, 64, 128, 320),
        depths=(1, 1, 3, 1),
        num_heads=(1, 2, 4, 10),
        window_sizes=(7, 7, 14, 7),
        drop_path_rate=0.0,
    )
    return FineSAMModel(*_parts(encoder, imgsz=imgsz, decoder_mlp_dim=512))


def build_next_nano(imgsz: int = 448) -> FineSAMModel:
    """What follows `nano` when it is trained: SAM with an image encoder on a pretrained trunk."""
    encoder = FineEncoder(imgsz, _EMBED_DIM)
    parts = _parts(encoder, imgsz=imgsz, decoder_mlp_dim=512)
    return FineSAMModel(*parts, pixel_mean=(127.0,) * 3, pixel_std=(128.0,) * 3)


def _parts(
    encoder: nn.Module, imgsz: int, decoder_mlp_dim: int
) -> tuple[nn.Module, PromptEncoder, MaskDecoder]:
    """What SAM consists of, around an image encoder."""
    prompt_encoder = PromptEncoder(
        embed_dim=_EMBED_DIM,
        image_embedding_size=(imgsz // 16, imgsz // 16),
        input_image_size=(imgsz, imgsz),
        mask_in_chans=16,
    )
    transformer = TwoWayTransformer(
        depth=2, embedding_dim=_EMBED_DIM, num_heads=8, mlp_dim=decoder_mlp_dim
    )
    decoder = MaskDecoder(transformer_dim=_EMBED_DIM, transformer=transformer)
    return encoder, prompt_encoder, decoder


def build_sam2(*, generation: Literal["2", "2.1"], **trunk: Any) -> SAM2Model:
    """SAM 2 or 2.1 at 1024 pixels; `trunk` are the options of its `Hiera`.

    The later generation tells memories of objects that are not there, and places object pointers
    in time. Where one mask is asked for, an unstable one gives way to the best of three.
    """
    hiera = Hiera(**trunk)
    neck = FpnNeck(
        _EMBED_DIM, hiera.channel_list, fpn_top_down_levels=(2, 3), fpn_interp_model="nearest"
    )
    is_later = generation == "2.1"
    return SAM2Model(
        ImageEncoder(hiera, neck, scalp=1),
        MemoryAttention(
            _EMBED_DIM, pos_enc_at_input=True, layer=MemoryAttentionLayer(), num_layers=4
        ),
        MemoryEncoder(out_dim=_MEMORY_DIM),
        image_size=1024,
        sigmoid_scale_for_mem_enc=20.0,
        sigmoid_bias_for_mem_enc=-10.0,
        use_mask_input_as_output_without_sam=True,
        directly_add_no_mem_embed=True,
        no_obj_embed_spatial=is_later,
        use_high_res_features_in_sam=True,
        multimask_output_in_sam=True,
        iou_prediction_use_sigmoid=True,
        use_obj_ptrs_in_encoder=True,
        add_tpos_enc_to_obj_ptrs=is_later,
        proj_tpos_enc_in_obj_ptrs=is_later,
        use_signed_tpos_enc_to_obj_ptrs=is_later,
        only_obj_ptrs_in_the_past_for_eval=True,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
        fixed_no_obj_ptr=True,
        multimask_output_for_tracking=True,
        use_multimask_token_for_obj_ptr=True,
        multimask_min_pt_num=0,
        multimask_max_pt_num=1,
        use_mlp_for_obj_ptr_proj=True,
        sam_mask_decoder_extra_args={"dynamic_multimask_via_stability": True},
    )
