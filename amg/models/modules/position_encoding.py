"""Sine encodings of positions, on a grid and on a line.

Sources: "Attention Is All You Need" (2017), section 3.5, generalised to two axes by "End-to-End
Object Detection with Transformers" (2020); `sam2/modeling/position_encoding.py` and
`sam2/modeling/sam2_utils.py`. Angles are computed in float32, or float64 where that is asked for.
"""

import math

import torch
from torch import nn

_EPS = 1e-6  # the last position is normalised to a hair less than `scale`


class PositionEmbeddingSine(nn.Module):
    """Positions of a map's cells: sines and cosines of its rows, then of its columns."""

    def __init__(
        self,
        num_pos_feats: int,
        temperature: float = 10000,
        normalize: bool = True,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        if num_pos_feats % 4:
            raise ValueError(
                f"num_pos_feats={num_pos_feats}: two axes of sines and cosines need a multiple of 4"
            )
        if scale is not None and not normalize:
            raise ValueError(f"scale={scale} without normalize=True would have no effect")
        self.num_pos_feats = num_pos_feats
        self.temperature = temperature
        self.normalize = normalize
        self.scale = 2 * math.pi if scale is None else scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Give the positions of a map (B, C, h, w): (B, num_pos_feats, h, w), the same for all B.

        Only the shape, device and precision of `x` matter; half precisions give float32.
        """
        batch, _, h, w = x.shape
        dtype = torch.promote_types(x.dtype, torch.float32)
        rows, columns = (self._encode_axis(n, dtype, x.device) for n in (h, w))
        half = self.num_pos_feats // 2
        on_grid = (rows.T[:, :, None].expand(half, h, w), columns.T[:, None, :].expand(half, h, w))
        return torch.cat(on_grid).expand(batch, -1, -1, -1)

    def _encode_axis(self, n: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Map positions 1 to n to (n, num_pos_feats / 2), sines and cosines in turn."""
        position = torch.arange(1, n + 1, dtype=dtype, device=device)
        if self.normalize:
            position = position / (position[-1:] + _EPS) * self.scale
        angles = position[:, None] / _wavelengths(
            self.num_pos_feats // 2, self.temperature, dtype, device
        )
        return torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], dim=2).flatten(1)


def encode_line(position: torch.Tensor, dim: int, temperature: float = 10000) -> torch.Tensor:
    """Map float positions (...) on a line to (..., dim): all sines, then all cosines.

    Source: `get_1d_sine_pe`.
    """
    angles = position[..., None] / _wavelengths(
        dim // 2, temperature, position.dtype, position.device
    )
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _wavelengths(
    n: int, temperature: float, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """From 1 to almost `temperature`, in n steps, each twice: (n,)."""
    step = torch.arange(n, dtype=dtype, device=device)
    return temperature ** (2 * (step // 2) / n)
