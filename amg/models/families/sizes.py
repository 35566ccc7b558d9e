"""What a model of each family is made by: the sizes that files of one family differ in.

Nothing here needs torch. Defaults are what the published models share.
"""

import math
from dataclasses import dataclass, field, fields


@dataclass(frozen=True, slots=True)
class DecoderSizes:
    """Of SAM's prompt encoder and mask decoder; `width` is also the image embedding's."""

    width: int = 256
    depth: int = 2
    num_heads: int = 8
    mlp_dim: int = 2048
    attention_downsample_rate: int = 2
    num_multimask_outputs: int = 3
    iou_head_depth: int = 3
    iou_head_hidden_dim: int = 256
    mask_in_chans: int = 16


@dataclass(frozen=True, slots=True)
class SAMViTSizes:
    """SAM with a ViT. `global_attn_indexes`: the blocks without windows of `window_size` cells."""

    embed_dim: int
    depth: int
    num_heads: int
    global_attn_indexes: tuple[int, ...]
    mlp_dim: int
    img_size: int = 1024
    window_size: int = 14
    use_abs_pos: bool = True
    use_rel_pos: bool = True
    qkv_bias: bool = True
    decoder: DecoderSizes = field(default_factory=DecoderSizes)


@dataclass(frozen=True, slots=True)
class TinySAMSizes:
    """SAM with a TinyViT: the stages behind the first attend, in windows.

    `num_classes`: of a head that serves classification alone.
    """

    embed_dims: tuple[int, ...]
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window_sizes: tuple[int, ...] = (7, 14, 7)
    mlp_ratio: float = 4.0
    mbconv_expand_ratio: float = 4.0
    local_conv_size: int = 3
    num_classes: int = 1000
    img_size: int = 1024
    decoder: DecoderSizes = field(default_factory=DecoderSizes)


@dataclass(frozen=True, slots=True)
class SAM2Sizes:
    """SAM 2 or 2.1: the options of its `Hiera`, and which generation of memory it has."""

    generation: str
    embed_dim: int
    num_heads: int
    stages: tuple[int, ...]
    global_att_blocks: tuple[int, ...]
    window_pos_embed_bkg_spatial_size: tuple[int, int] = (7, 7)
    window_spec: tuple[int, ...] = (8, 4, 14, 7)
    img_size: int = 1024


Sizes = SAMViTSizes | TinySAMSizes | SAM2Sizes

SAM_VIT_B = SAMViTSizes(768, 12, 12, (2, 5, 8, 11), mlp_dim=3072)
SAM_VIT_L = SAMViTSizes(1024, 24, 16, (5, 11, 17, 23), mlp_dim=4096)
SAM_VIT_H = SAMViTSizes(1280, 32, 16, (7, 15, 23, 31), mlp_dim=5120)
MOBILE_SAM = TinySAMSizes((64, 128, 160, 320), (2, 2, 6, 2), (4, 5, 10))
# 448 pixels fill the encoder's windows (7 and 14 cells) without padding.
NANO = TinySAMSizes(
    (32, 64, 128, 320),
    (1, 1, 3, 1),
    (2, 4, 10),
    num_classes=0,
    img_size=448,
    decoder=DecoderSizes(mlp_dim=512),
)
HIERA: tuple[SAM2Sizes, ...] = (
    SAM2Sizes("2.1", 96, 1, (1, 2, 7, 2), (5, 7, 9)),
    SAM2Sizes("2.1", 96, 1, (1, 2, 11, 2), (7, 10, 13)),
    SAM2Sizes("2.1", 112, 2, (2, 3, 16, 3), (12, 16, 20), (14, 14)),
    SAM2Sizes("2.1", 144, 2, (2, 6, 36, 4), (23, 33, 43), window_spec=(8, 4, 16, 8)),
)
"""Tiny, small, base plus and large."""


def ratio_of(hidden: int, width: int) -> float:
    """The ratio that makes `hidden` of `width`, also where the product is rounded down."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def differing(sizes: Sizes, others: Sizes) -> dict[str, tuple[object, object]]:
    """In what two of one family differ, by name: the first's value and the other's."""
    found: dict[str, tuple[object, object]] = {}
    for one in fields(sizes):
        mine, theirs = getattr(sizes, one.name), getattr(others, one.name)
        if isinstance(mine, DecoderSizes):
            inner = ((f"decoder.{f.name}", f.name) for f in fields(mine))
            pairs = {label: (getattr(mine, key), getattr(theirs, key)) for label, key in inner}
        else:
            pairs = {one.name: (mine, theirs)}
        found |= {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    return found
