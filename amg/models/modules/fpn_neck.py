"""SAM 2's image encoder: a trunk, and a feature pyramid that gives its maps one width.

Source: `sam2/modeling/backbones/image_encoder.py`, whose parameter names and shapes are kept.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from amg.models.modules.hiera import Hiera
from amg.models.modules.position_encoding import PositionEmbeddingSine


class FpnNeck(nn.Module):
    """A feature pyramid: each map to `d_model` channels, coarse maps added to finer ones.

    `backbone_channel_list` goes from coarse to fine. `fpn_top_down_levels` are the levels, 0 the
    finest, that get something from the next coarser one; all, if not given.
    """

    def __init__(
        self,
        d_model: int,
        backbone_channel_list: Sequence[int],
        kernel_size: int = 1,
        stride: int = 1,
        padding: int = 0,
        fpn_interp_model: str = "bilinear",
        fuse_type: str = "sum",
        fpn_top_down_levels: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if fuse_type not in ("sum", "avg"):
            raise ValueError(f"fuse_type={fuse_type!r} is neither 'sum' nor 'avg'")
        self.d_model = d_model
        self.backbone_channel_list = list(backbone_channel_list)
        self.fpn_interp_model = fpn_interp_model
        self.fuse_type = fuse_type
        n_levels = len(backbone_channel_list)
        self.fpn_top_down_levels = (
            range(n_levels) if fpn_top_down_levels is None else tuple(fpn_top_down_levels)
        )
        self.position_encoding = PositionEmbeddingSine(d_model)
        self.convs = nn.ModuleList()
        for channels in backbone_channel_list:
            lateral = nn.Sequential()
            lateral.add_module("conv", nn.Conv2d(channels, d_model, kernel_size, stride, padding))
            self.convs.append(lateral)

    def forward(self, xs: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Map the trunk's maps, fine to coarse, to features and positions of the same sizes."""
        features = self.fuse(xs)
        return features, self.positions(features)

    def fuse(self, xs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Map the trunk's maps (B, C_i, h_i, w_i), fine to coarse, to (B, d_model, h_i, w_i)."""
        assert len(xs) == len(self.convs)
        features: list[torch.Tensor] = []
        for level, conv in zip(range(len(xs) - 1, -1, -1), self.convs, strict=True):
            lateral = conv(xs[level])
            if features and level in self.fpn_top_down_levels:
                lateral = self._add(lateral, features[-1])
            features.append(lateral)
        return features[::-1]

    def positions(self, features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Sine positions of maps, in their shapes and types."""
        return [self.position_encoding(x).to(x.dtype) for x in features]

    def _add(self, lateral: torch.Tensor, coarser: torch.Tensor) -> torch.Tensor:
        """Add the next coarser features, at twice their size."""
        align_corners = None if self.fpn_interp_model == "nearest" else False
        top_down = F.interpolate(
            coarser, scale_factor=2.0, mode=self.fpn_interp_model, align_corners=align_corners
        )
        fused = lateral + top_down
        return fused / 2 if self.fuse_type == "avg" else fused


class ImageEncoder(nn.Module):
    """A trunk and its neck; `scalp` drops that many of the coarsest levels."""

    def __init__(self, trunk: Hiera, neck: FpnNeck, scalp: int = 0) -> None:
        super().__init__()
        if trunk.channel_list != neck.backbone_channel_list:
            raise ValueError(
                f"the neck is for channels {neck.backbone_channel_list}, the trunk gives "
                f"{trunk.channel_list}"
            )
        self.trunk = trunk
        self.neck = neck
        self.scalp = scalp

    def forward(self, sample: torch.Tensor) -> list[torch.Tensor]:
        """Map images (B, 3, H, W) to maps (B, d_model, h, w), fine to coarse.

        Their positions are the neck's to give: images do without.
        """
        features = self.neck.fuse(self.trunk(sample))
        return features[: len(features) - self.scalp]
