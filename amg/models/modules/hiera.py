"""Hiera, SAM 2's image encoder: four stages, each at half the resolution of the one before.

Sources: "Hiera: A Hierarchical Vision Transformer without the Bells-and-Whistles" (2023), "Window
Attention is Bugged" (2023) for its positions; `sam2/modeling/backbones/hieradet.py`, whose
parameter names and shapes are kept. Tokens are maps (B, h, w, C).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from amg.models.modules.layers import MLP, DropPath, run_block
from amg.models.modules.windows import window_partition, window_unpartition

_PATCH_STRIDE = 4
_MLP_RATIO = 4
_NORM_EPS = 1e-6


class PatchEmbed(nn.Module):
    """Embed overlapping patches of an image: (B, 3, H, W) to (B, H/4, W/4, C)."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, kernel_size=7, stride=_PATCH_STRIDE, padding=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, 3, H, W) to (B, H/4, W/4, C)."""
        return self.proj(x).permute(0, 2, 3, 1)


class MultiScaleAttention(nn.Module):
    """Multi-head attention over a map, whose queries may be pooled to fewer."""

    def __init__(self, dim: int, dim_out: int, num_heads: int, stride: int = 1) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.stride = stride
        self.qkv = nn.Linear(dim, dim_out * 3)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, h, w, C) to (B, h, w, C_out), or to the pooled queries' (h, w)."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q = _max_pool(q, self.stride)
        attended = F.scaled_dot_product_attention(
            self._split_heads(q), self._split_heads(k), self._split_heads(v)
        )
        return self.proj(attended.transpose(1, 2).reshape(q.shape))

    def _split_heads(self, x: torch.Tensor) -> torch.Tensor:
        """(B, h, w, C) to (B, heads, h * w, C / heads)."""
        return x.flatten(1, 2).unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class MultiScaleBlock(nn.Module):
    """A transformer block that may pool its map and widen its channels.

    Attention is in windows, or global where `window_size` is 0.
    """

    def __init__(
        self,
        dim: int,
        dim_out: int,
        num_heads: int,
        drop_path: float = 0.0,
        q_stride: tuple[int, int] | None = None,
        window_size: int = 0,
    ) -> None:
        super().__init__()
        stride = 1 if q_stride is None else q_stride[0]
        if (q_stride is not None and q_stride[1] != stride) or window_size % stride:
            raise ValueError(f"windows of {window_size} cannot be pooled by {q_stride}")
        self.window_size = window_size
        self.stride = stride
        self.norm1 = nn.LayerNorm(dim, eps=_NORM_EPS)
        self.attn = MultiScaleAttention(dim, dim_out, num_heads, stride)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim_out, eps=_NORM_EPS)
        self.mlp = MLP(dim_out, dim_out * _MLP_RATIO, dim_out, 2, activation=nn.GELU)
        self.proj = nn.Linear(dim, dim_out) if dim != dim_out else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, h, w, C) to (B, h', w', C_out)."""
        shortcut, x = x, self.norm1(x)
        if self.proj is not None:
            shortcut = _max_pool(self.proj(x), self.stride)
        x = shortcut + self.drop_path(self._attend(x))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: torch.Tensor) -> torch.Tensor:
        """Attention, in windows if there are any; pooling shrinks each window."""
        if not self.window_size:
            return self.attn(x)
        windows, padded_hw = window_partition(x, self.window_size)
        size_hw, padded_hw = (
            (h // self.stride, w // self.stride) for h, w in (x.shape[1:3], padded_hw)
        )
        return window_unpartition(
            self.attn(windows), self.window_size // self.stride, padded_hw, size_hw
        )


class Hiera(nn.Module):
    """The image encoder: (B, 3, H, W) to maps (B, C_i, H/2^(2+i), W/2^(2+i)), fine to coarse.

    A stage's first block still has the window of the stage before; it pools the queries, in the
    first `q_pool` stages after the first, and multiplies channels and heads.
    `window_pos_embed_bkg_spatial_size` is that of the positions which are stretched over the
    image; others repeat in each window.
    """

    def __init__(
        self,
        embed_dim: int = 96,
        num_heads: int = 1,
        drop_path_rate: float = 0.0,
        q_pool: int = 3,
        q_stride: tuple[int, int] = (2, 2),
        stages: Sequence[int] = (2, 3, 16, 3),
        dim_mul: float = 2.0,
        head_mul: float = 2.0,
        window_pos_embed_bkg_spatial_size: tuple[int, int] = (14, 14),
        window_spec: Sequence[int] = (8, 4, 14, 7),
        global_att_blocks: Sequence[int] = (12, 16, 20),
        return_interm_layers: bool = True,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.use_checkpoint = use_checkpoint
        if len(window_spec) != len(stages):
            raise ValueError(f"window_spec={window_spec}: one for each of {len(stages)} stages")
        if min(window_spec) <= 0:
            raise ValueError(
                f"window_spec={window_spec} must be positive; global_att_blocks have no windows"
            )
        if not 0 <= q_pool < len(stages):
            raise ValueError(f"q_pool={q_pool} must be from 0 to {len(stages) - 1}")
        self.return_interm_layers = return_interm_layers
        starts = [sum(stages[:i]) for i in range(1, len(stages))]
        self.stage_ends = [*(start - 1 for start in starts), sum(stages) - 1]

        self.patch_embed = PatchEmbed(embed_dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, embed_dim, *window_pos_embed_bkg_spatial_size))
        self.pos_embed_window = nn.Parameter(
            torch.zeros(1, embed_dim, window_spec[0], window_spec[0])
        )
        drop_paths = torch.linspace(0, drop_path_rate, sum(stages), device="cpu").tolist()
        self.blocks = nn.ModuleList()
        dim, stage, widths = embed_dim, 0, [embed_dim]
        for i, drop_path in enumerate(drop_paths):
            window = 0 if i in global_att_blocks else window_spec[stage]
            if i in starts:
                stage += 1
                num_heads = int(num_heads * head_mul)
                widths.append(int(dim * dim_mul))
            self.blocks.append(
                MultiScaleBlock(
                    dim,
                    widths[-1],
                    num_heads,
                    drop_path,
                    q_stride if i in starts[:q_pool] else None,
                    window,
                )
            )
            dim = widths[-1]
        self.channel_list = widths[::-1] if return_interm_layers else widths[-1:]

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Map (B, 3, H, W) to the map at the end of each stage, or of the last one only."""
        x = self.patch_embed(x)
        x = x + self._positions((x.shape[1], x.shape[2]))
        wanted = self.stage_ends if self.return_interm_layers else self.stage_ends[-1:]
        maps = []
        for i, block in enumerate(self.blocks):
            x = run_block(block, x, self.use_checkpoint)
            if i in wanted:
                maps.append(x.permute(0, 3, 1, 2))
        return maps

    def _positions(self, size_hw: tuple[int, int]) -> torch.Tensor:
        """Positions (1, h, w, C): one map stretched over all, one repeated in each window."""
        stretched = F.interpolate(self.pos_embed, size=size_hw, mode="bicubic")
        window = self.pos_embed_window.shape[-1]
        repeated = self.pos_embed_window.tile(1, 1, size_hw[0] // window, size_hw[1] // window)
        return (stretched + repeated).permute(0, 2, 3, 1)


def _max_pool(x: torch.Tensor, stride: int) -> torch.Tensor:
    """(B, h, w, C) to (B, h / stride, w / stride, C)."""
    if stride == 1:
        return x
    return F.max_pool2d(x.permute(0, 3, 1, 2), stride, stride).permute(0, 2, 3, 1)
