"""TinyViT, MobileSAM's image encoder: convolutions, then three stages of window attention.

Sources: "TinyViT: Fast Pretraining Distillation for Small Vision Transformers" (2022), section 3.2;
`mobile_sam/modeling/tiny_vit_sam.py`, whose parameter names and shapes are kept.
Feature maps are (B, C, h, w) in the convolution stage and tokens (B, h * w, C) after it.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import nn

from amg.models.modules.layers import DropPath, make_neck, run_block
from amg.models.modules.tiny_vit_layers import (
    Attention,
    Conv2d_BN,
    MBConv,
    Mlp,
    PatchEmbed,
    PatchMerging,
)
from amg.models.modules.windows import window_partition, window_unpartition

MakeMerging = Callable[[tuple[int, int], int, int, type[nn.Module]], nn.Module]
"""As `PatchMerging`: input resolution, width, width of the output, activation."""


class ConvLayer(nn.Module):
    """The first stage: MBConv blocks on a map, then `downsample`, as `PatchMerging`, to tokens."""

    def __init__(
        self,
        dim: int,
        input_resolution: tuple[int, int],
        depth: int,
        activation: type[nn.Module],
        drop_path: float | Sequence[float] = 0.0,
        downsample: MakeMerging | None = None,
        use_checkpoint: bool = False,
        out_dim: int | None = None,
        conv_expand_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        self.use_checkpoint = use_checkpoint
        self.blocks = nn.ModuleList(
            MBConv(dim, dim, conv_expand_ratio, activation, rate)
            for rate in _each(drop_path, depth)
        )
        self.downsample = downsample and downsample(
            input_resolution, dim, out_dim or dim, activation
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, h, w) to tokens (B, L, out_dim); to a map where there is no merging."""
        return self.merge(self.run_blocks(x))

    def run_blocks(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, h, w) to the same shape."""
        for block in self.blocks:
            x = run_block(block, x, self.use_checkpoint)
        return x

    def merge(self, x: torch.Tensor) -> torch.Tensor:
        """What comes after the blocks."""
        return x if self.downsample is None else self.downsample(x)


class TinyViTBlock(nn.Module):
    """Window attention, a depthwise local convolution, an MLP; tokens (B, L, dim) to themselves."""

    def __init__(
        self,
        dim: int,
        input_resolution: tuple[int, int],
        num_heads: int,
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        drop: float = 0.0,
        drop_path: float = 0.0,
        local_conv_size: int = 3,
        activation: type[nn.Module] = nn.GELU,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim={dim} must be a multiple of num_heads={num_heads}")
        if window_size <= 0:
            raise ValueError(f"window_size={window_size} must be positive")
        self.input_resolution = input_resolution
        self.window_size = window_size
        self.attn = Attention(
            dim, dim // num_heads, num_heads, attn_ratio=1, resolution=(window_size, window_size)
        )
        self.drop_path = DropPath(drop_path)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=activation, drop=drop)
        self.local_conv = Conv2d_BN(dim, dim, local_conv_size, 1, local_conv_size // 2, groups=dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map tokens (B, h * w, dim) to the same shape."""
        _, n_tokens, _ = x.shape
        h, w = self.input_resolution
        if n_tokens != h * w:
            raise ValueError(f"got {n_tokens} tokens for an input resolution of {h} x {w}")
        x = x + self.drop_path(self._attend(x))
        spatial = x.transpose(1, 2).unflatten(2, (h, w))
        x = self.local_conv(spatial).flatten(2).transpose(1, 2)
        return x + self.drop_path(self.mlp(x))

    def _attend(self, x: torch.Tensor) -> torch.Tensor:
        size_hw, window = self.input_resolution, self.window_size
        if size_hw == (window, window):
            return self.attn(x)
        windows, padded_hw = window_partition(x.unflatten(1, size_hw), window)
        windows = self.attn(windows.flatten(1, 2))
        return window_unpartition(windows, window, padded_hw, size_hw).flatten(1, 2)


class BasicLayer(nn.Module):
    """A stage of `TinyViTBlock`s, then `downsample`, as `PatchMerging`, where it is given."""

    def __init__(
        self,
        dim: int,
        input_resolution: tuple[int, int],
        depth: int,
        num_heads: int,
        window_size: int,
        mlp_ratio: float = 4.0,
        drop: float = 0.0,
        drop_path: float | Sequence[float] = 0.0,
        downsample: MakeMerging | None = None,
        use_checkpoint: bool = False,
        local_conv_size: int = 3,
        activation: type[nn.Module] = nn.GELU,
        out_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.use_checkpoint = use_checkpoint
        self.blocks = nn.ModuleList(
            TinyViTBlock(
                dim,
                input_resolution,
                num_heads,
                window_size,
                mlp_ratio,
                drop,
                rate,
                local_conv_size,
                activation,
            )
            for rate in _each(drop_path, depth)
        )
        self.downsample = downsample and downsample(
            input_resolution, dim, out_dim or dim, activation
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map tokens (B, L, dim) to tokens (B, L', out_dim)."""
        return self.merge(self.run_blocks(x))

    def run_blocks(self, x: torch.Tensor) -> torch.Tensor:
        """Map tokens (B, L, dim) to the same shape."""
        for block in self.blocks:
            x = run_block(block, x, self.use_checkpoint)
        return x

    def merge(self, x: torch.Tensor) -> torch.Tensor:
        """What comes after the blocks."""
        return x if self.downsample is None else self.downsample(x)


class TinyViT(nn.Module):
    """The image encoder: (B, in_chans, S, S) to (B, 256, S/16, S/16).

    `norm_head` and `head` serve classification alone; they stay because published checkpoints
    hold them. `use_checkpoint` and `layer_lr_decay` are training options of the published
    constructor: the first recomputes activations, the second is for `set_layer_lr_decay`.
    """

    def __init__(
        self,
        img_size: int = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        embed_dims: Sequence[int] = (96, 192, 384, 768),
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_sizes: Sequence[int] = (7, 7, 14, 7),
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        use_checkpoint: bool = False,
        mbconv_expand_ratio: float = 4.0,
        local_conv_size: int = 3,
        layer_lr_decay: float = 1.0,
        out_chans: int = 256,
    ) -> None:
        super().__init__()
        activation = nn.GELU
        self.patch_embed = PatchEmbed(in_chans, embed_dims[0], img_size, activation)
        drop_paths = torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist()
        self.layers = nn.ModuleList()
        for i, (dim, depth) in enumerate(zip(embed_dims, depths, strict=True)):
            start = sum(depths[:i])
            is_last = i + 1 == len(embed_dims)
            shared: dict[str, Any] = {
                "dim": dim,
                "input_resolution": (0, 0),
                "depth": depth,
                "activation": activation,
                "drop_path": drop_paths[start : start + depth],
                "downsample": None if is_last else PatchMerging,
                "use_checkpoint": use_checkpoint,
                "out_dim": None if is_last else embed_dims[i + 1],
            }
            if i == 0:
                layer = ConvLayer(**shared, conv_expand_ratio=mbconv_expand_ratio)
            else:
                layer = BasicLayer(
                    **shared,
                    num_heads=num_heads[i],
                    window_size=window_sizes[i],
                    mlp_ratio=mlp_ratio,
                    drop=drop_rate,
                    local_conv_size=local_conv_size,
                )
            self.layers.append(layer)
        self.norm_head = nn.LayerNorm(embed_dims[-1])
        self.head = nn.Linear(embed_dims[-1], num_classes) if num_classes > 0 else nn.Identity()
        self.apply(_init_weights)
        self.neck = make_neck(embed_dims[-1], out_chans)
        self.set_layer_lr_decay(layer_lr_decay)
        self.set_imgsz((img_size, img_size))

    def set_layer_lr_decay(self, layer_lr_decay: float) -> None:
        """Give each parameter an `lr_scale` for optimisers to multiply their rate by.

        The last block's is 1, and each block before has `layer_lr_decay` times that of the next;
        what is not in a block has its neighbour's.
        """
        self.layer_lr_decay = layer_lr_decay
        layers = [cast(ConvLayer | BasicLayer, layer) for layer in self.layers]
        n_later = sum(len(layer.blocks) for layer in layers)
        _set_lr_scale(self, 1.0)
        _set_lr_scale(self.patch_embed, layer_lr_decay ** (n_later - 1))
        for layer in layers:
            for block in layer.blocks:
                n_later -= 1
                _set_lr_scale(block, layer_lr_decay**n_later)
            if layer.downsample is not None:
                _set_lr_scale(layer.downsample, layer_lr_decay**n_later)

    def no_weight_decay_keywords(self) -> set[str]:
        """What names of parameters contain that should not decay."""
        return {"attention_biases"}

    def set_imgsz(self, imgsz: tuple[int, int] = (1024, 1024)) -> None:
        """Take inputs of `imgsz`, (height, width) in pixels, multiples of 16."""
        height, width = imgsz
        if height % 16 or width % 16 or min(imgsz) <= 0:
            raise ValueError(f"imgsz={imgsz} must be positive multiples of 16")
        self.img_size = height
        resolution = (height // 4, width // 4)
        self.patch_embed.patches_resolution = resolution
        for layer in self.layers:
            for block in cast(nn.ModuleList, layer.blocks):
                if isinstance(block, TinyViTBlock):
                    block.input_resolution = resolution
            merge = layer.downsample
            if isinstance(merge, PatchMerging):
                merge.input_resolution = resolution
                # A 3 x 3 convolution of stride 2 and padding 1 rounds odd sizes up.
                resolution = (-(-resolution[0] // merge.stride), -(-resolution[1] // merge.stride))
        self.output_resolution = resolution

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, in_chans, S, S) to (B, 256, S/16, S/16)."""
        return self.forward_features(x)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """The same: the published model's name for it."""
        x = self.patch_embed(x)
        for layer in self.layers:
            x = layer(x)
        return self.neck(x.transpose(1, 2).unflatten(2, self.output_resolution))


def _set_lr_scale(module: nn.Module, scale: float) -> None:
    for parameter in module.parameters():
        parameter.lr_scale = scale  # pyright: ignore[reportAttributeAccessIssue] - the published way


def _each(rates: float | Sequence[float], depth: int) -> Sequence[float]:
    """A rate for each of `depth` blocks, given so or as one for all."""
    if isinstance(rates, Sequence):
        if len(rates) != depth:
            raise ValueError(f"drop_path has {len(rates)} rates for {depth} blocks")
        return rates
    return [rates] * depth


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
