"""How each published architecture, and the built-in one, is put together.

Sources: `segment_anything/build_sam.py`, `mobile_sam/build_sam.py`, `sam2/build_sam.py` and the
configurations beside it.
"""

from collections.abc import Callable
from functools import partial

from torch import nn

from amg.models.families.fine_sam import FineSAMModel
from amg.models.families.sam import SAMModel
from amg.models.families.sam2 import SAM2Model
from amg.models.families.sizes import (
    NANO,
    DecoderSizes,
    SAM2Sizes,
    SAMViTSizes,
    TinySAMSizes,
    ratio_of,
)
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
_STRIDE = 16  # pixels of the input for a cell of the image's embedding


def build_sam_vit(sizes: SAMViTSizes) -> SAMModel:
    """SAM with a ViT image encoder."""
    encoder = ImageEncoderViT(
        img_size=sizes.img_size,
        embed_dim=sizes.embed_dim,
        depth=sizes.depth,
        num_heads=sizes.num_heads,
        mlp_ratio=ratio_of(sizes.mlp_dim, sizes.embed_dim),
        out_chans=sizes.decoder.width,
        qkv_bias=sizes.qkv_bias,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_abs_pos=sizes.use_abs_pos,
        use_rel_pos=sizes.use_rel_pos,
        window_size=sizes.window_size,
        global_attn_indexes=sizes.global_attn_indexes,
    )
    return SAMModel(*_parts(encoder, sizes.img_size, sizes.decoder))


def build_tiny_sam(sizes: TinySAMSizes) -> SAMModel:
    """MobileSAM, and what has its layout: a TinyViT and SAM's decoder."""
    return SAMModel(*_parts(_tiny_vit(TinyViT, sizes), sizes.img_size, sizes.decoder))


def build_nano(sizes: TinySAMSizes = NANO) -> FineSAMModel:
    """The built-in model: MobileSAM's architecture, smaller, with SAM 2's finer features."""
    return FineSAMModel(*_parts(_tiny_vit(FineTinyViT, sizes), sizes.img_size, sizes.decoder))


def _tiny_vit(make: Callable[..., TinyViT], sizes: TinySAMSizes) -> TinyViT:
    encoder = make(
        img_size=sizes.img_size,
        num_classes=sizes.num_classes,
        embed_dims=sizes.embed_dims,
        depths=sizes.depths,
        # The first stage has neither heads nor windows.
        num_heads=(1, *sizes.num_heads),
        window_sizes=(1, *sizes.window_sizes),
        mlp_ratio=sizes.mlp_ratio,
        drop_path_rate=0.0,
        mbconv_expand_ratio=sizes.mbconv_expand_ratio,
        local_conv_size=sizes.local_conv_size,
        out_chans=sizes.decoder.width,
    )
    if encoder.output_resolution[0] * _STRIDE != sizes.img_size:
        raise ValueError(
            f"a TinyViT of widths {sizes.embed_dims} does not end at a sixteenth of its input"
        )
    return encoder


def build_next_nano(imgsz: int = 448) -> FineSAMModel:
    """What follows `nano` when it is trained: SAM with an image encoder on a pretrained trunk."""
    encoder = FineEncoder(imgsz, _EMBED_DIM)
    parts = _parts(encoder, imgsz, NANO.decoder)
    return FineSAMModel(*parts, pixel_mean=(127.0,) * 3, pixel_std=(128.0,) * 3)


def _parts(
    encoder: nn.Module, imgsz: int, sizes: DecoderSizes
) -> tuple[nn.Module, PromptEncoder, MaskDecoder]:
    """What SAM consists of, around an image encoder."""
    prompt_encoder = PromptEncoder(
        embed_dim=sizes.width,
        image_embedding_size=(imgsz // _STRIDE, imgsz // _STRIDE),
        input_image_size=(imgsz, imgsz),
        mask_in_chans=sizes.mask_in_chans,
    )
    transformer = TwoWayTransformer(
        depth=sizes.depth,
        embedding_dim=sizes.width,
        num_heads=sizes.num_heads,
        mlp_dim=sizes.mlp_dim,
        attention_downsample_rate=sizes.attention_downsample_rate,
    )
    decoder = MaskDecoder(
        transformer_dim=sizes.width,
        transformer=transformer,
        num_multimask_outputs=sizes.num_multimask_outputs,
        iou_head_depth=sizes.iou_head_depth,
        iou_head_hidden_dim=sizes.iou_head_hidden_dim,
    )
    return encoder, prompt_encoder, decoder


def build_sam2(sizes: SAM2Sizes) -> SAM2Model:
    """SAM 2 or 2.1.

    The later generation tells memories of objects that are not there, and places object pointers
    in time. Where one mask is asked for, an unstable one gives way to the best of three.
    """
    hiera = Hiera(
        embed_dim=sizes.embed_dim,
        num_heads=sizes.num_heads,
        stages=sizes.stages,
        window_pos_embed_bkg_spatial_size=sizes.window_pos_embed_bkg_spatial_size,
        window_spec=sizes.window_spec,
        global_att_blocks=sizes.global_att_blocks,
    )
    neck = FpnNeck(
        _EMBED_DIM, hiera.channel_list, fpn_top_down_levels=(2, 3), fpn_interp_model="nearest"
    )
    is_later = sizes.generation == "2.1"
    return SAM2Model(
        ImageEncoder(hiera, neck, scalp=1),
        MemoryAttention(
            _EMBED_DIM, pos_enc_at_input=True, layer=MemoryAttentionLayer(), num_layers=4
        ),
        MemoryEncoder(out_dim=_MEMORY_DIM),
        image_size=sizes.img_size,
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
