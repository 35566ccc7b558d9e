"""The parts of TinyViT: convolutions with batch norm, merging, attention with learned biases.

Source: `mobile_sam/modeling/tiny_vit_sam.py`, whose parameter names and shapes are kept.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from amg.models.modules.layers import DropPath

# Output widths at which the published model keeps the resolution, so that it ends at stride 16.
_WIDTHS_WITHOUT_STRIDE = (320, 448, 576)


class Conv2d_BN(nn.Sequential):  # noqa: N801 - the published name
    """A convolution without bias, `c`, and its batch norm, `bn`."""

    def __init__(
        self,
        a: int,
        b: int,
        ks: int = 1,
        stride: int = 1,
        pad: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bn_weight_init: float = 1.0,
    ) -> None:
        super().__init__()
        self.add_module("c", nn.Conv2d(a, b, ks, stride, pad, dilation, groups, bias=False))
        norm = nn.BatchNorm2d(b)
        nn.init.constant_(norm.weight, bn_weight_init)
        self.add_module("bn", norm)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Both; in evaluation as one convolution, its weights folded anew: they are few."""
        if self.training:
            return super().forward(input)
        conv, norm = cast(nn.Conv2d, self.c), cast(nn.BatchNorm2d, self.bn)
        assert norm.running_var is not None and norm.running_mean is not None
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        return F.conv2d(
            input,
            conv.weight * scale[:, None, None, None],
            norm.bias - norm.running_mean * scale,
            conv.stride,
            cast(tuple[int, int], conv.padding),
            conv.dilation,
            conv.groups,
        )


class PatchEmbed(nn.Module):
    """Two stride-2 convolutions: (B, in_chans, S, S) to (B, embed_dim, S/4, S/4)."""

    def __init__(
        self,
        in_chans: int,
        embed_dim: int,
        resolution: int,
        activation: type[nn.Module] = nn.GELU,
    ) -> None:
        super().__init__()
        self.patches_resolution = (resolution // 4, resolution // 4)
        self.seq = nn.Sequential(
            Conv2d_BN(in_chans, embed_dim // 2, 3, 2, 1),
            activation(),
            Conv2d_BN(embed_dim // 2, embed_dim, 3, 2, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, in_chans, S, S) to (B, embed_dim, S/4, S/4)."""
        return self.seq(x)


class MBConv(nn.Module):
    """Inverted bottleneck with a shortcut, (B, C, h, w) to itself; both widths must be equal."""

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        expand_ratio: float,
        activation: type[nn.Module],
        drop_path: float,
    ) -> None:
        super().__init__()
        if in_chans != out_chans:
            raise ValueError(
                f"MBConv adds its input to its output: in_chans={in_chans} must equal "
                f"out_chans={out_chans}"
            )
        hidden = int(in_chans * expand_ratio)
        self.conv1 = Conv2d_BN(in_chans, hidden, ks=1)
        self.act1 = activation()
        self.conv2 = Conv2d_BN(hidden, hidden, ks=3, pad=1, groups=hidden)
        self.act2 = activation()
        self.conv3 = Conv2d_BN(hidden, out_chans, ks=1, bn_weight_init=0.0)
        self.act3 = activation()
        self.drop_path = DropPath(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, h, w) to the same shape."""
        hidden = self.act2(self.conv2(self.act1(self.conv1(x))))
        return self.act3(x + self.drop_path(self.conv3(hidden)))


class PatchMerging(nn.Module):
    """Halve the resolution and change the width, to tokens (B, L, out_dim).

    The resolution stays where `out_dim` is 320, 448 or 576.
    """

    def __init__(
        self, input_resolution: tuple[int, int], dim: int, out_dim: int, activation: type[nn.Module]
    ) -> None:
        super().__init__()
        self.input_resolution = input_resolution
        self.stride = 1 if out_dim in _WIDTHS_WITHOUT_STRIDE else 2
        self.act = activation()
        self.conv1 = Conv2d_BN(dim, out_dim, 1, 1, 0)
        self.conv2 = Conv2d_BN(out_dim, out_dim, 3, self.stride, 1, groups=out_dim)
        self.conv3 = Conv2d_BN(out_dim, out_dim, 1, 1, 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, h, w), or tokens (B, h * w, C), to tokens (B, L, out_dim)."""
        if x.ndim == 3:
            x = x.transpose(1, 2).unflatten(2, self.input_resolution)
        x = self.conv3(self.act(self.conv2(self.act(self.conv1(x)))))
        return x.flatten(2).transpose(1, 2)


class Mlp(nn.Module):
    """Pre-normalised two-layer perceptron on tokens (B, L, C); widths not given are the input's."""

    def __init__(
        self,
        in_features: int,
        hidden_features: int | None = None,
        out_features: int | None = None,
        act_layer: type[nn.Module] = nn.GELU,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        hidden_features = hidden_features or in_features
        self.norm = nn.LayerNorm(in_features)
        self.fc1 = nn.Linear(in_features, hidden_features)
        self.act = act_layer()
        self.fc2 = nn.Linear(hidden_features, out_features or in_features)
        self.drop = nn.Dropout(drop)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, L, C) to (B, L, out_features)."""
        return self.drop(self.fc2(self.drop(self.act(self.fc1(self.norm(x))))))


class Attention(nn.Module):
    """Multi-head attention whose scores get a learned bias for each |offset| between positions.

    `resolution` is the (h, w) of the window that the tokens come from; L = h * w.
    """

    attention_bias_idxs: torch.Tensor

    def __init__(
        self,
        dim: int,
        key_dim: int,
        num_heads: int = 8,
        attn_ratio: float = 4,
        resolution: tuple[int, int] = (14, 14),
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.key_dim = key_dim
        self.value_dim = int(attn_ratio * key_dim)
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, num_heads * (2 * key_dim + self.value_dim))
        self.proj = nn.Linear(num_heads * self.value_dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(num_heads, resolution[0] * resolution[1]))
        self.register_buffer("attention_bias_idxs", _offset_indices(resolution), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map tokens (B, L, dim) to the same shape."""
        batch, n_tokens, _ = x.shape
        qkv = self.qkv(self.norm(x)).view(batch, n_tokens, self.num_heads, -1).transpose(1, 2)
        q, k, v = qkv.split([self.key_dim, self.key_dim, self.value_dim], dim=3)
        bias = self.attention_biases[:, self.attention_bias_idxs].to(q.dtype)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(x.transpose(1, 2).flatten(2))


def _offset_indices(resolution: tuple[int, int]) -> torch.Tensor:
    """(L, L) index of the absolute (row, column) offset between each two of L = h * w positions."""
    rows, columns = torch.meshgrid(*(torch.arange(n) for n in resolution), indexing="ij")
    rows, columns = rows.flatten(), columns.flatten()
    row_offset = (rows[:, None] - rows).abs()
    return row_offset * resolution[1] + (columns[:, None] - columns).abs()
