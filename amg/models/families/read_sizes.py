"""Sizes read from a file's tensors, in the published layout, with a `config.json` where there is.

What tensors can tell, they tell; the configuration tells what leaves no trace in shapes (heads
without relative positions, a Hiera's windows); the rest is as published. Nothing needs torch.
Every reader raises CheckpointError that names the tensor or value that it misses.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

from amg.errors import CheckpointError
from amg.models.families.sizes import (
    HIERA,
    DecoderSizes,
    SAM2Sizes,
    SAMViTSizes,
    TinySAMSizes,
    ratio_of,
)

_PATCH_SIZE = 16

Shapes = Mapping[str, tuple[int, ...]]
Config = Mapping[str, Any]
"""The parsed `config.json` of `transformers`, or nothing."""


def read_sam_vit(shapes: Shapes, config: Config) -> SAMViTSizes:
    """Of SAM with a ViT, pruned or not."""
    vision = config.get("vision_config", {})
    encoder = _Part(shapes, "image_encoder.")
    embed_dim, _, patch_size, _ = encoder.shape("patch_embed.proj.weight", 4)
    if patch_size != _PATCH_SIZE:
        raise CheckpointError(f"its patches have {patch_size} pixels a side, not {_PATCH_SIZE}")
    depth = encoder.count("blocks")
    use_abs_pos = "image_encoder.pos_embed" in shapes
    grid = encoder.shape("pos_embed", 4)[1] if use_abs_pos else None
    rows = [shapes.get(f"image_encoder.blocks.{i}.attn.rel_pos_h") for i in range(depth)]
    spans = [(row[0] + 1) // 2 for row in rows if row]
    if len(spans) == depth:
        num_heads = embed_dim // encoder.shape("blocks.0.attn.rel_pos_h", 2)[1]
        # Windows may be larger than a small input's grid.
        grid = max(spans) if grid is None else grid
        is_global = [span == grid for span in spans]
        windows = next((span for span in spans if span != grid), grid)
    else:
        num_heads = _told(vision, "num_attention_heads")
        indexes = _told(vision, "global_attn_indexes")
        is_global, windows = [i in indexes for i in range(depth)], _told(vision, "window_size")
    if grid is None:
        grid = _told(vision, "image_size") // patch_size
    return SAMViTSizes(
        embed_dim=embed_dim,
        depth=depth,
        num_heads=num_heads,
        global_attn_indexes=tuple(i for i, alone in enumerate(is_global) if alone),
        mlp_dim=encoder.shape("blocks.0.mlp.lin1.weight", 2)[0],
        img_size=grid * patch_size,
        window_size=windows,
        use_abs_pos=use_abs_pos,
        use_rel_pos=len(spans) == depth,
        qkv_bias="image_encoder.blocks.0.attn.qkv.bias" in shapes,
        decoder=_read_decoder(shapes, config),
    )


def read_tiny_sam(img_size: int) -> Callable[[Shapes, Config], TinySAMSizes]:
    """Of SAM with a TinyViT, whose tensors do not depend on its input's size."""

    def read(shapes: Shapes, config: Config) -> TinySAMSizes:
        encoder = _Part(shapes, "image_encoder.")
        n_stages = encoder.count("layers")
        first = [f"layers.{i}.blocks.0." for i in range(1, n_stages)]
        dims = [
            encoder.shape("patch_embed.seq.2.c.weight", 4)[0],
            *(
                encoder.shape(f"layers.{i}.downsample.conv3.c.weight", 4)[0]
                for i in range(n_stages - 1)
            ),
        ]
        biases = [encoder.shape(f"{block}attn.attention_biases", 2) for block in first]
        hidden, width = encoder.shape("layers.0.blocks.0.conv1.c.weight", 4)[:2]
        head = shapes.get("image_encoder.head.weight")
        return TinySAMSizes(
            embed_dims=tuple(dims),
            depths=tuple(encoder.count(f"layers.{i}.blocks") for i in range(n_stages)),
            num_heads=tuple(heads for heads, _ in biases),
            window_sizes=tuple(math.isqrt(n_offsets) for _, n_offsets in biases),
            mlp_ratio=ratio_of(*encoder.shape(f"{first[0]}mlp.fc1.weight", 2)),
            mbconv_expand_ratio=ratio_of(hidden, width),
            local_conv_size=encoder.shape(f"{first[0]}local_conv.c.weight", 4)[2],
            num_classes=head[0] if head else 0,
            img_size=img_size,
            decoder=_read_decoder(shapes, config),
        )

    return read


def read_sam2(shapes: Shapes, config: Config) -> SAM2Sizes:
    """Of SAM 2: tensors tell widths and stages, heads and windows only for the published four."""
    trunk = _Part(shapes, "image_encoder.trunk.")
    embed_dim = trunk.shape("patch_embed.proj.weight", 4)[0]
    depth = trunk.count("blocks")
    starts = [i for i in range(depth) if f"image_encoder.trunk.blocks.{i}.proj.weight" in shapes]
    edges = [0, *starts, depth]
    stages = tuple(end - start for start, end in pairwise(edges))
    background = trunk.shape("pos_embed", 4)
    has_memory = any(key.startswith("memory_encoder.") for key in shapes)
    is_first = has_memory and "no_obj_embed_spatial" not in shapes
    return replace(
        _hiera(embed_dim, stages, config),
        generation="2" if is_first else "2.1",
        window_pos_embed_bkg_spatial_size=(background[2], background[3]),
        img_size=_input_side(config),
    )


def _hiera(embed_dim: int, stages: tuple[int, ...], config: Config) -> SAM2Sizes:
    """What a trunk's tensors do not tell: from the configuration, or of a published size."""
    vision = config.get("vision_config", {})
    backbone = vision.get("backbone_config", {})
    if backbone:
        return SAM2Sizes(
            generation="2.1",
            embed_dim=embed_dim,
            num_heads=_told(backbone, "num_attention_heads"),
            stages=stages,
            global_att_blocks=tuple(_told(backbone, "global_attention_blocks")),
            window_spec=tuple(_told(backbone, "window_size_per_stage")),
        )
    for known in HIERA:
        if (known.embed_dim, known.stages) == (embed_dim, stages):
            return known
    raise CheckpointError(
        f"a SAM 2 of width {embed_dim} and stages {stages} is none of the published four, and "
        "tensors do not tell its heads and windows: give a folder with its config.json"
    )


def _input_side(config: Config) -> int:
    backbone = config.get("vision_config", {}).get("backbone_config", {})
    side = backbone.get("image_size", 1024)
    return int(side[0]) if isinstance(side, list) else int(side)


def _read_decoder(shapes: Shapes, config: Config) -> DecoderSizes:
    decoder = _Part(shapes, "mask_decoder.")
    n_masks, width = decoder.shape("mask_tokens.weight", 2)
    inner = decoder.shape("transformer.layers.0.cross_attn_token_to_image.q_proj.weight", 2)[0]
    return DecoderSizes(
        width=width,
        depth=decoder.count("transformer.layers"),
        num_heads=config.get("mask_decoder_config", {}).get("num_attention_heads", 8),
        mlp_dim=decoder.shape("transformer.layers.0.mlp.lin1.weight", 2)[0],
        attention_downsample_rate=max(1, width // max(1, inner)),
        num_multimask_outputs=n_masks - 1,
        iou_head_depth=decoder.count("iou_prediction_head.layers"),
        iou_head_hidden_dim=decoder.shape("iou_prediction_head.layers.0.weight", 2)[0],
        mask_in_chans=_Part(shapes, "prompt_encoder.").shape("mask_downscaling.3.weight", 4)[0],
    )


class _Part:
    """The tensors of one part of a model."""

    def __init__(self, shapes: Shapes, prefix: str) -> None:
        self._shapes, self._prefix = shapes, prefix

    def shape(self, name: str, n_dims: int) -> tuple[int, ...]:
        """A tensor's shape, all sides positive."""
        key = self._prefix + name
        if key not in self._shapes:
            raise CheckpointError(f"{key} is missing")
        shape = self._shapes[key]
        if len(shape) != n_dims or not all(shape):
            raise CheckpointError(f"{key} has shape {shape}, but should have {n_dims} dimensions")
        return shape

    def count(self, name: str) -> int:
        """How many are numbered after a name, from 0 on without a gap."""
        prefix = f"{self._prefix}{name}."
        found = {k[len(prefix) :].split(".")[0] for k in self._shapes if k.startswith(prefix)}
        if not found or found != {str(i) for i in range(len(found))}:
            raise CheckpointError(f"{prefix}* are not numbered from 0 on")
        return len(found)


def _told(section: Config, name: str) -> Any:
    """A value of a configuration. Raises CheckpointError where it is needed, and not there."""
    if name not in section:
        raise CheckpointError(
            f"its tensors do not tell {name}: give a folder with the model's config.json"
        )
    return section[name]
