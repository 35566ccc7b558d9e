"""TinyViT with finer features beside its embedding: what masks need to follow borders.

A mask is made from an embedding at a sixteenth of the input, where a border is lost. SAM 2 lets
features at a quarter and an eighth into the upscaling; here they come from TinyViT's first stages
and, from coarse to fine, from its embedding, so that they tell borders of things from texture.
Sources: "SAM 2: Segment Anything in Images and Videos" (2024), appendix C; "Feature Pyramid
Networks for Object Detection" (2017).
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from amg.models.modules.fine_encoder import FineFeatures
from amg.models.modules.tiny_vit import BasicLayer, ConvLayer, TinyViT
from amg.models.modules.tiny_vit_layers import Conv2d_BN


class FinePath(nn.Module):
    """From the embedding back to an eighth and a quarter, each time with that stage's own map.

    What it gives starts as zero: a model trained without it is the same with it.
    """

    def __init__(
        self, quarter_dim: int, eighth_dim: int, embed_dim: int, quarter_width: int = 48
    ) -> None:
        super().__init__()
        eighth_width = embed_dim // 4
        self.embedding_lateral = nn.Conv2d(embed_dim, eighth_width, kernel_size=1)
        self.eighth_lateral = nn.Conv2d(eighth_dim, eighth_width, kernel_size=1)
        self.eighth_block = Conv2d_BN(eighth_width, eighth_width, 3, 1, 1)
        self.eighth_down = nn.Conv2d(eighth_width, quarter_width, kernel_size=1)
        self.quarter_lateral = nn.Conv2d(quarter_dim, quarter_width, kernel_size=1)
        self.quarter_blocks = nn.ModuleList(
            Conv2d_BN(quarter_width, quarter_width, 3, 1, 1) for _ in range(2)
        )
        self.eighth_out = _zero(nn.Conv2d(eighth_width, embed_dim // 4, kernel_size=1))
        self.quarter_out = _zero(nn.Conv2d(quarter_width, embed_dim // 8, kernel_size=1))

    def forward(
        self, quarter: torch.Tensor, eighth: torch.Tensor, embedding: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps (B, C_i, ., .) of two stages and the embedding to `at_quarter` and `at_eighth`."""
        x = self.eighth_lateral(eighth) + _doubled(self.embedding_lateral(embedding))
        x = F.gelu(x + self.eighth_block(x))
        at_eighth = self.eighth_out(x)
        x = self.quarter_lateral(quarter) + _doubled(self.eighth_down(x))
        for block in self.quarter_blocks:
            x = F.gelu(x + block(x))
        return self.quarter_out(x), at_eighth


class FineTinyViT(TinyViT):
    """`TinyViT` that gives `FineFeatures`; its own keys are the same, those of `fine` are new."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        quarter_dim, eighth_dim = options["embed_dims"][:2]
        embed_dim = cast(nn.Conv2d, self.neck[0]).out_channels
        self.fine = FinePath(quarter_dim, eighth_dim, embed_dim)

    def forward_features(  # pyright: ignore[reportIncompatibleMethodOverride] - it gives more
        self, x: torch.Tensor
    ) -> FineFeatures:
        """Map (B, in_chans, S, S) to an embedding at S/16 and features at S/4 and S/8."""
        x = self.patch_embed(x)
        stages: list[torch.Tensor] = []
        for layer in cast(list[ConvLayer | BasicLayer], self.layers):
            x = layer.run_blocks(x)
            stages.append(x)
            x = layer.merge(x)
        embedding = self.neck(x.transpose(1, 2).unflatten(2, self.output_resolution))
        quarter, eighth = stages[:2]
        h, w = quarter.shape[2:]
        eighth = eighth.transpose(1, 2).unflatten(2, (h // 2, w // 2))
        return FineFeatures(embedding, *self.fine(quarter, eighth, embedding))


def _doubled(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    assert layer.bias is not None
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
