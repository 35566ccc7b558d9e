"""EfficientNet-Lite0: a small convolutional trunk, pretrained on photographs.

Inverted bottlenecks without squeeze and excitation, with ReLU6, and TensorFlow's "same" padding.
Batch norms keep the statistics of their pretraining, also while the rest is trained, and are
folded into the convolution before them: each pair is one convolution.
Sources: "EfficientNet: Rethinking Model Scaling" (2019), its `lite` directory; names of parameters
as `timm`'s `tf_efficientnet_lite0`.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from amg.models.modules.layers import run_block

_NORM_EPS = 1e-3
_STEM_WIDTH = 32
# Of each stage: blocks, kernel, stride of the first block, expansion, width.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
# The stages whose output is the last at its stride: 4, 8, 16 and 32.
_LAST_AT_STRIDE = (1, 2, 4, 6)
TRUNK_WIDTHS = tuple(_STAGES[i][-1] for i in _LAST_AT_STRIDE)


class EfficientNetLite(nn.Module):
    """The trunk, without its classifier."""

    def __init__(self, use_checkpoint: bool = False) -> None:
        super().__init__()
        self.use_checkpoint = use_checkpoint
        self.conv_stem = _conv(3, _STEM_WIDTH, 3, stride=2)
        self.bn1 = _norm(_STEM_WIDTH)
        widths = (_STEM_WIDTH, *(stage[-1] for stage in _STAGES))
        self.blocks = nn.ModuleList(
            _stage(width_in, width_out, *options)
            for (width_in, width_out), (*options, _) in zip(pairwise(widths), _STAGES, strict=True)
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Map (B, 3, S, S) to the maps at strides 4, 8, 16 and 32, `TRUNK_WIDTHS` wide."""
        x = F.relu6(normed_conv(x, self.conv_stem, self.bn1))
        maps: list[torch.Tensor] = []
        for index, stage in enumerate(self.blocks):
            x = run_block(stage, x, self.use_checkpoint)
            if index in _LAST_AT_STRIDE:
                maps.append(x)
        return maps


class SeparableConv(nn.Module):
    """A depthwise and a pointwise convolution, (B, C_in, h, w) to (B, C_out, h, w)."""

    def __init__(self, width_in: int, width_out: int, kernel: int) -> None:
        super().__init__()
        self.conv_dw = _conv(width_in, width_in, kernel, groups=width_in)
        self.bn1 = _norm(width_in)
        self.conv_pw = _conv(width_in, width_out, 1)
        self.bn2 = _norm(width_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C_in, h, w) to (B, C_out, h, w)."""
        x = F.relu6(normed_conv(x, self.conv_dw, self.bn1))
        return normed_conv(x, self.conv_pw, self.bn2)


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow; added to its input where the shapes are equal."""

    def __init__(
        self, width_in: int, width_out: int, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        width = width_in * expansion
        self.conv_pw = _conv(width_in, width, 1)
        self.bn1 = _norm(width)
        self.conv_dw = _conv(width, width, kernel, stride, groups=width)
        self.bn2 = _norm(width)
        self.conv_pwl = _conv(width, width_out, 1)
        self.bn3 = _norm(width_out)
        self.has_shortcut = stride == 1 and width_in == width_out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C_in, h, w) to (B, C_out, h / stride, w / stride), rounded up."""
        wide = F.relu6(normed_conv(x, self.conv_pw, self.bn1))
        wide = F.relu6(normed_conv(wide, self.conv_dw, self.bn2))
        narrow = normed_conv(wide, self.conv_pwl, self.bn3)
        return x + narrow if self.has_shortcut else narrow


def normed_conv(x: torch.Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> torch.Tensor:
    """A convolution and its batch norm, in one; the norm's statistics stay as they are."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    weight = conv.weight * scale[:, None, None, None]
    bias = norm.bias - norm.running_mean * scale
    (kernel, _), (stride, _) = conv.kernel_size, conv.stride
    return F.conv2d(_same_padded(x, kernel, stride), weight, bias, stride, groups=conv.groups)


def _same_padded(x: torch.Tensor, kernel: int, stride: int) -> torch.Tensor:
    """Pad as TensorFlow does: the output has a pixel for each `stride`, odd rows go below."""
    below_h, below_w = (_same_padding(n, kernel, stride) for n in x.shape[-2:])
    if not below_h and not below_w:
        return x
    sides = (below_w // 2, below_w - below_w // 2, below_h // 2, below_h - below_h // 2)
    return F.pad(x, sides)


def _same_padding(n: int, kernel: int, stride: int) -> int:
    """Rows to add to n, so that a convolution gives n / stride of them, rounded up."""
    return max((-(-n // stride) - 1) * stride + kernel - n, 0)


def _stage(
    width_in: int, width_out: int, depth: int, kernel: int, stride: int, expansion: int
) -> nn.Sequential:
    if expansion == 1:
        return nn.Sequential(SeparableConv(width_in, width_out, kernel))
    first = InvertedResidual(width_in, width_out, kernel, stride, expansion)
    rest = (InvertedResidual(width_out, width_out, kernel, 1, expansion) for _ in range(depth - 1))
    return nn.Sequential(first, *rest)


def _conv(
    width_in: int, width_out: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    return nn.Conv2d(width_in, width_out, kernel, stride, groups=groups, bias=False)


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=_NORM_EPS)
