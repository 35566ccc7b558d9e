"""A small SAM 2.1, ours and the original's, from the published configuration."""

import re
from functools import partial

import torch

from amg.models.families.sam2 import SAM2Model
from amg.models.modules.fpn_neck import FpnNeck, ImageEncoder
from amg.models.modules.hiera import Hiera
from amg.models.modules.memory_attention import MemoryAttention, MemoryAttentionLayer
from amg.models.modules.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder
from amg.models.modules.position_encoding import PositionEmbeddingSine
from amg.models.modules.rope_attention import RoPEAttention
from benchmarks.original_sam2 import instantiate, published_config
from tests.models.parity import precision, randomise

IMGSZ, DIM, MEMORY_DIM = 128, 32, 8
SIDE = IMGSZ // 16
# What SAM 2 differs by from SAM 2.1.
SAM2_OPTIONS = {
    "no_obj_embed_spatial": False,
    "add_tpos_enc_to_obj_ptrs": False,
    "proj_tpos_enc_in_obj_ptrs": False,
    "use_signed_tpos_enc_to_obj_ptrs": False,
}


def small_config(memory_dim=MEMORY_DIM, **changes):
    """Everything as published but the sizes, and `changes` of the model's options."""
    config = published_config("sam2.1_hiera_t")
    trunk, neck = config["image_encoder"]["trunk"], config["image_encoder"]["neck"]
    trunk |= {
        "embed_dim": 8,
        "stages": [1, 2, 3, 1],
        "global_att_blocks": [4],
        "window_pos_embed_bkg_spatial_size": [5, 5],
        "window_spec": [8, 4, 6, 3],
    }
    neck |= {"d_model": DIM, "backbone_channel_list": [64, 32, 16, 8]}
    neck["position_encoding"]["num_pos_feats"] = DIM
    attention, encoder = config["memory_attention"], config["memory_encoder"]
    for name in ("self_attention", "cross_attention"):
        attention["layer"][name] |= {"embedding_dim": DIM, "feat_sizes": [SIDE, SIDE]}
    attention["layer"]["cross_attention"]["kv_in_dim"] = memory_dim
    attention["layer"] |= {"d_model": DIM, "dim_feedforward": 48}
    attention |= {"d_model": DIM, "num_layers": 2}
    encoder["mask_downsampler"]["embed_dim"] = encoder["fuser"]["layer"]["dim"] = DIM
    encoder["position_encoding"]["num_pos_feats"] = memory_dim
    encoder |= {"out_dim": memory_dim, "in_dim": DIM}
    return config | {"image_size": IMGSZ} | changes


def our_neck(position_encoding, **options):
    """Ours makes its own positions."""
    assert position_encoding.num_pos_feats == options["d_model"]
    return FpnNeck(**options)


OURS = {
    part.__name__: part
    for part in (
        Hiera,
        ImageEncoder,
        MemoryAttention,
        MemoryAttentionLayer,
        RoPEAttention,
        MemoryEncoder,
        MaskDownSampler,
        Fuser,
        CXBlock,
        PositionEmbeddingSine,
    )
} | {"FpnNeck": our_neck, "SAM2Base": SAM2Model}
instantiate_ours = partial(instantiate, classes=OURS)


def sam2_twins(dtype=torch.float32, seed=0, **changes):
    """The two with the same random weights."""
    config = small_config(**changes)
    with precision(dtype):  # rotations are made here
        theirs = instantiate(config)
    ours = instantiate_ours(config)
    randomise(theirs, seed)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours.to(dtype).eval(), theirs.to(dtype).eval()


# In random weights the point is lost among all else that tokens are made of, and every prompt
# gives the same masks. With these factors it is most of them; masks are small and have firm edges.
_FACTORS = {
    r"iou_token|mask_tokens|obj_score_token|not_a_point|point_embeddings|trunk\.pos_embed": 0.05,
    r"sam_mask_decoder\.transformer\..*bias": 0.0,
    r"cross_attn_token_to_image\.out_proj\.weight": 0.3,
    r"hypernetworks_mlps\.\d\.layers\.2\.weight": 20.0,
    r"iou_prediction_head\.layers\.2\.weight": 4.0,
}
_HYPERNETWORK_BIAS = -25.0


def prompted_twins(**changes):
    """The two with weights by which every point gives other masks."""
    ours, theirs = sam2_twins(seed=5, **changes)
    state = ours.state_dict()
    for name, tensor in state.items():
        for pattern, factor in _FACTORS.items():
            if re.search(pattern, name):
                tensor.mul_(factor)
        if re.search(r"hypernetworks_mlps\.\d\.layers\.2\.bias", name):
            tensor.fill_(_HYPERNETWORK_BIAS)
    theirs.load_state_dict(state, strict=True)
    return ours, theirs
