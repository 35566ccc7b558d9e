"""An image encoder on a pretrained trunk: an embedding, and finer features beside it.

A mask is made from an embedding at a sixteenth of the input, where a border is lost. SAM 2 lets
features at a quarter and an eighth into the upscaling; so does this. The coarsest map sees the
whole image by attention; from there the way goes from coarse to fine, each time with the trunk's
own map, so that borders of things are told from texture.
Sources: "SAM 2: Segment Anything in Images and Videos" (2024), appendix C; "Feature Pyramid
Networks for Object Detection" (2017); blocks as in "A ConvNet for the 2020s" (2022); positions as
in "Conditional Positional Encodings for Vision Transformers" (2021).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from amg.models.modules.efficientnet_lite import TRUNK_WIDTHS, EfficientNetLite
from amg.models.modules.layers import LayerNorm2d

_HEAD_WIDTH = 32
# About how large values of the trunk's maps are, at strides 4, 8 and 16.
_TRUNK_SCALES = (10.0, 6.5, 3.0)
_EIGHTH_WIDTH = 64
_QUARTER_WIDTH = 48


class FineFeatures(NamedTuple):
    """Of B images: `embedding` (B, C, h, w), `at_quarter` (B, C / 8, 4h, 4w), `at_eighth`
    (B, C / 4, 2h, 2w), the last two as the mask decoder's upscaling takes them.
    """

    embedding: torch.Tensor
    at_quarter: torch.Tensor
    at_eighth: torch.Tensor


class FineEncoder(nn.Module):
    """`EfficientNetLite` with a neck that gives `FineFeatures`."""

    def __init__(self, img_size: int, embed_dim: int, use_checkpoint: bool = False) -> None:
        super().__init__()
        self.img_size = img_size
        self.trunk = EfficientNetLite(use_checkpoint)
        self.neck = FineNeck(embed_dim)

    def set_imgsz(self, imgsz: tuple[int, int]) -> None:
        """Take inputs of (height, width) pixels: multiples of 16."""
        if imgsz[0] % 16 or imgsz[1] % 16:
            raise ValueError(f"imgsz={imgsz}: sides must be multiples of 16")
        self.img_size = imgsz[0]

    def forward(self, x: torch.Tensor) -> FineFeatures:
        """Map (B, 3, S, S) to an embedding at S/16 and features at S/4 and S/8."""
        return self.neck(*self.trunk(x))


class FineNeck(nn.Module):
    """From the trunk's maps to an embedding, and back to an eighth and a quarter."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        quarter, eighth, sixteenth, coarse = TRUNK_WIDTHS
        self.coarse_lateral = nn.Conv2d(coarse, embed_dim, 1)
        self.coarse_blocks = nn.ModuleList(AttentionBlock(embed_dim) for _ in range(2))
        self.lateral = nn.Conv2d(sixteenth, embed_dim, 1)
        self.blocks = nn.ModuleList(ConvNeXtBlock(embed_dim) for _ in range(2))
        self.norm = LayerNorm2d(embed_dim)

        self.eighth_lateral = nn.Conv2d(eighth, _EIGHTH_WIDTH, 1)
        self.eighth_down = nn.Conv2d(embed_dim, _EIGHTH_WIDTH, 1)
        self.eighth_block = ConvBlock(_EIGHTH_WIDTH)
        self.eighth_out = nn.Conv2d(_EIGHTH_WIDTH, embed_dim // 4, 1)
        self.quarter_lateral = nn.Conv2d(quarter, _QUARTER_WIDTH, 1)
        self.quarter_down = nn.Conv2d(_EIGHTH_WIDTH, _QUARTER_WIDTH, 1)
        self.quarter_blocks = nn.ModuleList(ConvBlock(_QUARTER_WIDTH) for _ in range(2))
        self.quarter_out = nn.Conv2d(_QUARTER_WIDTH, embed_dim // 8, 1)
        laterals = (self.quarter_lateral, self.eighth_lateral, self.lateral)
        with torch.no_grad():
            for layer, scale in zip(laterals, _TRUNK_SCALES, strict=True):
                layer.weight.div_(scale)

    def forward(
        self,
        quarter: torch.Tensor,
        eighth: torch.Tensor,
        sixteenth: torch.Tensor,
        coarse: torch.Tensor,
    ) -> FineFeatures:
        """Map the trunk's maps at strides 4, 8, 16 and 32 to `FineFeatures`."""
        x = self.coarse_lateral(coarse)
        for block in self.coarse_blocks:
            x = block(x)
        x = self.lateral(sixteenth) + _enlarged(x, sixteenth)
        for block in self.blocks:
            x = block(x)
        embedding = self.norm(x)

        x = self.eighth_lateral(eighth) + _enlarged(self.eighth_down(embedding), eighth)
        x = self.eighth_block(x)
        at_eighth = self.eighth_out(x)
        x = self.quarter_lateral(quarter) + _enlarged(self.quarter_down(x), quarter)
        for block in self.quarter_blocks:
            x = block(x)
        return FineFeatures(embedding, self.quarter_out(x), at_eighth)


class AttentionBlock(nn.Module):
    """Positions from neighbours, attention among all pixels, an MLP; (B, C, h, w) to itself."""

    def __init__(self, width: int, expansion: int = 2) -> None:
        super().__init__()
        self.n_heads = width // _HEAD_WIDTH
        self.position = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.widen = nn.Linear(width, expansion * width)
        self.narrow = nn.Linear(expansion * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, h, w) to itself."""
        size_hw = x.shape[2:]
        x = (x + self.position(x)).flatten(2).transpose(1, 2)
        heads = self.qkv(self.norm1(x)).unflatten(2, (3, self.n_heads, -1))
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        x = x + self.narrow(F.gelu(self.widen(self.norm2(x))))
        return x.transpose(1, 2).unflatten(2, size_hw)


class ConvNeXtBlock(nn.Module):
    """Each channel filtered, then each pixel by an MLP, added to the input (B, C, h, w)."""

    def __init__(self, width: int, expansion: int = 2, kernel: int = 7) -> None:
        super().__init__()
        self.filter = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, expansion * width)
        self.narrow = nn.Linear(expansion * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, h, w) to itself."""
        pixels = self.norm(self.filter(x).permute(0, 2, 3, 1))
        return x + self.narrow(F.gelu(self.widen(pixels))).permute(0, 3, 1, 2)


class ConvBlock(nn.Module):
    """A 3 x 3 convolution added to its input (B, C, h, w), activated."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, h, w) to itself."""
        return F.gelu(x + self.conv(x))


def _enlarged(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A map (B, C, h, w) at the size of a finer one."""
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)
