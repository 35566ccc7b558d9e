"""Small layers that several models share."""

from itertools import pairwise

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of a (B, C, H, W) map.

    Source: `segment_anything/modeling/common.py` (there from ConvNeXt).
    """

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise each pixel of (B, C, H, W) over C."""
        if x.dtype == torch.float16:  # its squares overflow from 256 on, and all would be zero
            x = x.float()
        centred = x - x.mean(1, keepdim=True)
        variance = centred.square().mean(1, keepdim=True)
        normalised = centred / torch.sqrt(variance + self.eps)
        return self.weight[:, None, None] * normalised + self.bias[:, None, None]


class DropPath(nn.Module):
    """Stochastic depth: in training, zero a residual branch for a random share of the batch."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale (B, ...) by 0 or 1 / (1 - drop_prob) for each item; identity when not training."""
        if not self.training or self.drop_prob == 0.0:
            return x
        keep_prob = 1.0 - self.drop_prob
        mask = x.new_empty((x.shape[0], *[1] * (x.ndim - 1))).bernoulli_(keep_prob)
        return x * mask / keep_prob


def run_block(block: nn.Module, x: torch.Tensor, use_checkpoint: bool) -> torch.Tensor:
    """A block's output; in training with `use_checkpoint` its activations are computed again."""
    if use_checkpoint and block.training:
        return checkpoint(block, x, use_reentrant=False)
    return block(x)


class MLPBlock(nn.Module):
    """Two linear layers around an activation, (..., C) to (..., C).

    Source: `segment_anything/modeling/common.py`.
    """

    def __init__(self, embedding_dim: int, mlp_dim: int, act: type[nn.Module] = nn.GELU) -> None:
        super().__init__()
        self.lin1 = nn.Linear(embedding_dim, mlp_dim)
        self.lin2 = nn.Linear(mlp_dim, embedding_dim)
        self.act = act()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., C) to (..., C)."""
        return self.lin2(self.act(self.lin1(x)))


class MLP(nn.Module):
    """A stack of `num_layers` linear layers, (..., C_in) to (..., C_out), activated in between.

    Sources: `segment_anything/modeling/mask_decoder.py`, `sam2/modeling/sam2_utils.py`.
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int,
        output_dim: int,
        num_layers: int,
        activation: type[nn.Module] = nn.ReLU,
        sigmoid_output: bool = False,
    ) -> None:
        super().__init__()
        dims = [input_dim, *[hidden_dim] * (num_layers - 1), output_dim]
        self.layers = nn.ModuleList(nn.Linear(n_in, n_out) for n_in, n_out in pairwise(dims))
        self.act = activation()
        self.sigmoid_output = sigmoid_output

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., C_in) to (..., C_out), between 0 and 1 with `sigmoid_output`."""
        *hidden, last = self.layers
        for layer in hidden:
            x = self.act(layer(x))
        x = last(x)
        return x.sigmoid() if self.sigmoid_output else x


def make_neck(in_channels: int, out_channels: int) -> nn.Sequential:
    """The neck that ends SAM's image encoders: (B, C_in, h, w) to (B, C_out, h, w)."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False),
        LayerNorm2d(out_channels),
        nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
        LayerNorm2d(out_channels),
    )
