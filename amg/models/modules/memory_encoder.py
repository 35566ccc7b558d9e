"""SAM 2's memory encoder: a frame's features and a mask on it to what later frames remember.

Sources: "SAM 2: Segment Anything in Images and Videos" (2024), section 4; "A ConvNet for the 2020s"
(2022) for its blocks; `sam2/modeling/memory_encoder.py`, whose parameter names and shapes are kept.
"""

import copy
import math
from typing import TypedDict

import torch
from torch import nn

from amg.models.modules.layers import DropPath, LayerNorm2d
from amg.models.modules.position_encoding import PositionEmbeddingSine


class EncodedMemory(TypedDict):
    """Memory features (B, C_mem, h, w), and their positions: a list of one map of that shape."""

    vision_features: torch.Tensor
    vision_pos_enc: list[torch.Tensor]


class MaskDownSampler(nn.Module):
    """Masks (B, 1, H, W) to (B, C, H / total_stride, W / total_stride), `stride` at a time.

    Each step has stride^2 times the channels of the one before, from 1.
    """

    def __init__(
        self,
        embed_dim: int = 256,
        kernel_size: int = 4,
        stride: int = 4,
        padding: int = 0,
        total_stride: int = 16,
        activation: type[nn.Module] = nn.GELU,
    ) -> None:
        super().__init__()
        n_steps = round(math.log(total_stride, stride))
        if stride**n_steps != total_stride:
            raise ValueError(f"total_stride={total_stride} is no power of stride={stride}")
        steps: list[nn.Module] = []
        channels = 1
        for _ in range(n_steps):
            wider = channels * stride**2
            steps += [
                nn.Conv2d(channels, wider, kernel_size, stride, padding),
                LayerNorm2d(wider),
                activation(),
            ]
            channels = wider
        self.encoder = nn.Sequential(*steps, nn.Conv2d(channels, embed_dim, kernel_size=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, 1, H, W) to (B, C, h, w)."""
        return self.encoder(x)


class CXBlock(nn.Module):
    """A ConvNeXt block on (B, C, h, w): spatial mixing, then an MLP on each cell, then a scale."""

    def __init__(
        self,
        dim: int,
        kernel_size: int = 7,
        padding: int = 3,
        drop_path: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        use_dwconv: bool = True,
    ) -> None:
        super().__init__()
        groups = dim if use_dwconv else 1
        self.dwconv = nn.Conv2d(dim, dim, kernel_size, padding=padding, groups=groups)
        self.norm = LayerNorm2d(dim)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = (
            nn.Parameter(torch.full((dim,), layer_scale_init_value))
            if layer_scale_init_value > 0
            else None
        )
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, h, w) to itself."""
        cells = self.norm(self.dwconv(x)).permute(0, 2, 3, 1)
        cells = self.pwconv2(self.act(self.pwconv1(cells)))
        if self.gamma is not None:
            cells = self.gamma * cells
        return x + self.drop_path(cells.permute(0, 3, 1, 2))


class Fuser(nn.Module):
    """`num_layers` copies of a layer on (B, dim, h, w), after a projection where asked for."""

    def __init__(
        self,
        layer: nn.Module,
        num_layers: int,
        dim: int | None = None,
        input_projection: bool = False,
    ) -> None:
        super().__init__()
        if input_projection and dim is None:
            raise ValueError("input_projection=True needs dim")
        self.proj = nn.Identity() if dim is None or not input_projection else nn.Conv2d(dim, dim, 1)
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(num_layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, h, w) to itself."""
        x = self.proj(x)
        for layer in self.layers:
            x = layer(x)
        return x


class MemoryEncoder(nn.Module):
    """A mask is brought to the features' size, added to them, and both are fused.

    The parts are those of the published models where not given.
    """

    def __init__(
        self,
        out_dim: int,
        in_dim: int = 256,
        mask_downsampler: nn.Module | None = None,
        fuser: nn.Module | None = None,
        position_encoding: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.mask_downsampler = mask_downsampler or MaskDownSampler(
            in_dim, kernel_size=3, stride=2, padding=1
        )
        self.pix_feat_proj = nn.Conv2d(in_dim, in_dim, kernel_size=1)
        self.fuser = fuser or Fuser(CXBlock(in_dim), num_layers=2)
        self.position_encoding = position_encoding or PositionEmbeddingSine(out_dim)
        self.out_proj = (
            nn.Conv2d(in_dim, out_dim, kernel_size=1) if out_dim != in_dim else nn.Identity()
        )

    def forward(
        self, pix_feat: torch.Tensor, masks: torch.Tensor, skip_mask_sigmoid: bool = False
    ) -> EncodedMemory:
        """Encode features (B, C, h, w) and mask logits (B, 1, 16h, 16w).

        `skip_mask_sigmoid` says that the masks are not logits, and go in as they are.
        """
        if not skip_mask_sigmoid:
            masks = masks.sigmoid()
        downsampled = self.mask_downsampler(masks)
        # Features of past frames may be kept on the CPU.
        fused = self.fuser(self.pix_feat_proj(pix_feat.to(downsampled.device)) + downsampled)
        features = self.out_proj(fused)
        positions = self.position_encoding(features).to(features.dtype)
        return {"vision_features": features, "vision_pos_enc": [positions]}
