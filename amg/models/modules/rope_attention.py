"""Attention whose queries and keys are turned by their place on a grid.

Sources: "RoFormer: Enhanced Transformer with Rotary Position Embedding" (2021), on two axes as in
"Rotary Position Embedding for Vision Transformer" (2024); `sam2/modeling/sam/transformer.py` and
`sam2/modeling/position_encoding.py`. A pair of channels is a complex number, turned by an angle.
"""

import functools
import math

import torch
import torch.nn.functional as F
from torch import nn

from amg.models.modules.two_way_transformer import Attention


class RoPEAttention(Attention):
    """Multi-head attention with rotary positions of a map of `feat_sizes`, (w, h) in cells.

    Keys and values may have `kv_in_dim` channels. With `rope_k_repeat`, keys may be several maps
    one after the other, each turned as the queries' map.
    """

    def __init__(
        self,
        embedding_dim: int,
        num_heads: int,
        downsample_rate: int = 1,
        dropout: float = 0.0,
        kv_in_dim: int | None = None,
        *,
        rope_theta: float = 10000.0,
        rope_k_repeat: bool = False,
        feat_sizes: tuple[int, int] = (64, 64),
    ) -> None:
        super().__init__(embedding_dim, num_heads, downsample_rate)
        internal_dim = self.q_proj.out_features
        self.head_dim = internal_dim // num_heads
        if self.head_dim % 4:
            raise ValueError(f"{self.head_dim} channels a head: two axes of pairs need fours")
        if kv_in_dim is not None:
            self.k_proj = nn.Linear(kv_in_dim, internal_dim)
            self.v_proj = nn.Linear(kv_in_dim, internal_dim)
        self.dropout_p = dropout
        self.rope_theta = rope_theta
        self.rope_k_repeat = rope_k_repeat
        self.feat_sizes = (feat_sizes[0], feat_sizes[1])

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, num_k_exclude_rope: int = 0
    ) -> torch.Tensor:
        """Map queries (B, L, C) over keys and values (B, S, C_kv) to (B, L, C).

        The last `num_k_exclude_rope` keys have no place on the map, and are not turned.
        """
        q, k, v = (
            self.split_heads(project(x))
            for project, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        )
        n_queries, n_placed = q.shape[2], k.shape[2] - num_k_exclude_rope
        self._check_keys(n_placed, n_queries)
        rotation = self._rotation(q)
        placed, unplaced = k.split([n_placed, num_k_exclude_rope], dim=2)
        attended = F.scaled_dot_product_attention(
            rotate(q, rotation),
            torch.cat([rotate(placed, rotation), unplaced], dim=2),
            v,
            dropout_p=self.dropout_p if self.training else 0.0,
        )
        return self.out_proj(attended.transpose(1, 2).flatten(2))

    def _check_keys(self, n_placed: int, n_queries: int) -> None:
        """Refuse keys that are not a whole map, or not one where only one is expected."""
        fits = n_placed % n_queries == 0 if self.rope_k_repeat else n_placed == n_queries
        if not fits:
            several = "s" if self.rope_k_repeat else ""
            raise ValueError(f"{n_placed} keys are not the map{several} of {n_queries} queries")

    def _rotation(self, q: torch.Tensor) -> torch.Tensor:
        """The rotation of queries (B, heads, L, C): of `feat_sizes`, or of any other square."""
        n_queries = q.shape[2]
        size_wh = self.feat_sizes
        if math.prod(size_wh) != n_queries:
            size_wh = (math.isqrt(n_queries),) * 2
        if math.prod(size_wh) != n_queries:
            raise ValueError(f"{n_queries} queries are neither {self.feat_sizes} nor a square map")
        dtype = torch.promote_types(q.dtype, torch.float32)
        return axial_rotation(self.head_dim, size_wh, self.rope_theta, dtype, q.device)


@functools.lru_cache(maxsize=8)  # all layers of a model share one
@torch.inference_mode(False)  # what is kept may be needed for training later
def axial_rotation(
    head_dim: int, size_wh: tuple[int, int], theta: float, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """The unit numbers that turn every cell of a (w, h) map: complex (h * w, head_dim / 2).

    The first half of the pairs turns with x, the second with y. `dtype` is that of their parts.
    """
    frequency = 1 / theta ** (torch.arange(0, head_dim, 4, dtype=dtype, device=device) / head_dim)
    w, h = size_wh
    cell = torch.arange(h * w, device=device)
    angles = torch.cat([axis[:, None] * frequency for axis in (cell % w, cell // w)], dim=1)
    return torch.polar(torch.ones_like(angles), angles)


def rotate(x: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """Turn the pairs of channels of (..., n * L, C) by (L, C / 2): n maps, each the same way.

    Computed in the rotation's precision, and given back in that of `x`.
    """
    n_maps = x.shape[-2] // len(rotation)
    pairs = x.to(rotation.dtype.to_real()).unflatten(-1, (-1, 2))
    maps = torch.view_as_complex(pairs).unflatten(-2, (n_maps, len(rotation)))
    turned = torch.view_as_real(maps * rotation)
    return turned.flatten(-2).flatten(-3, -2).to(x.dtype)
