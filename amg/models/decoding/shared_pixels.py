"""What the mask decoder makes of an image's pixels that is the same for every prompt.

A block of the transformer changes pixels by attention to T tokens and by a layer norm. So a
prompt's pixels are always a part that all prompts share and few directions that are its own:

    pixels (P, C) = scale (P,) * base (P, C) + mixing (R, P)^T @ (values @ carried) + constant

`base`, `carried` and `constant` (C,) come from image and weights alone. A prompt has its tokens'
`values` (G, T, e), G = heads of all blocks so far and e a head's channels and one more that is
constant, and for each pixel a weight of each, `mixing` with R = G T rows, and a `scale`. A block
appends rows; a norm divides scale and mixing by a pixel's deviation, and moves its weights and bias
to the shared parts. Whatever linear comes next is applied to the shared parts, once an image.

This file has the shared parts; `fast_decoder.py` computes with them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from amg.models.modules.layers import LayerNorm2d
from amg.models.modules.mask_decoder import MaskDecoder
from amg.models.modules.two_way_transformer import (
    Attention,
    TwoWayAttentionBlock,
    TwoWayTransformer,
)


@dataclass(frozen=True, slots=True)
class PixelParts:
    """`base` (P, C), `carried` (G, e, C) and `constant` (C,), at some depth of the decoder."""

    base: torch.Tensor
    carried: torch.Tensor
    constant: torch.Tensor


@dataclass(frozen=True, slots=True)
class Projected:
    """The parts after a linear layer into heads of d channels, and the pixels' positions alike.

    `base` and `positions` (heads, d, P), `carried` (heads, d, G e), `constant` (heads, d).
    """

    base: torch.Tensor
    positions: torch.Tensor
    carried: torch.Tensor
    constant: torch.Tensor


@dataclass(frozen=True, slots=True)
class SharedNorm:
    """What a norm needs to know a pixel's deviation: products of the parts, mean removed.

    `carried` with itself (G, e, G e) and with base (G, e, P), `base_squares` (P,).
    """

    carried: torch.Tensor
    cross: torch.Tensor
    base_squares: torch.Tensor
    n_channels: int
    eps: float


@dataclass(frozen=True, slots=True)
class SharedBlock:
    """Pixels as a block of the transformer meets them: attended to, attending, normalised."""

    keys: Projected
    values: Projected
    queries: Projected
    norm: SharedNorm


@dataclass(frozen=True, slots=True)
class SharedPixels:
    """Pixels in the blocks, in the last attention, and in the first transposed convolution.

    `upscaled` are that one's parts: four pixels' channels side by side in the place of C.
    `last_bias` is the second convolution's. High-resolution features are in `upscaled.constant`,
    (P, 4 C / 4), and in `last_bias`, (4 P, 4 C / 8); without them these have one row for all.
    """

    blocks: tuple[SharedBlock, ...]
    last_keys: Projected
    last_values: Projected
    upscaled: PixelParts
    last_bias: torch.Tensor
    size_hw: tuple[int, int]


def share_pixels(
    decoder: MaskDecoder,
    image_embeddings: torch.Tensor,
    image_pe: torch.Tensor,
    dense_prompt_embeddings: torch.Tensor,
    high_res_features: Sequence[torch.Tensor] = (),
) -> SharedPixels:
    """Prepare an image for `fast_decoder`. All maps are (1, C, h, w).

    high_res_features: SAM 2's, (1, C / 8, 4h, 4w) and (1, C / 4, 2h, 2w).
    The decoder has to be one that `can_share`.
    """
    first, _, second = upscaling_layers(decoder)
    base = _as_rows(image_embeddings + dense_prompt_embeddings)
    positions = _as_rows(image_pe)
    parts = PixelParts(base, base.new_zeros(0, 1, base.shape[1]), torch.zeros_like(base[0]))
    transformer, transformer_blocks = transformer_layers(decoder)
    blocks = []
    for block in transformer_blocks:
        shared, parts = _share_block(block, parts, positions)
        blocks.append(shared)
    last = transformer.final_attn_token_to_image
    weight, bias = convolution_as_product(first)
    constant = (weight @ parts.constant + bias).unsqueeze(0)
    last_bias = convolution_as_product(second)[1].unsqueeze(0)
    if high_res_features:
        at_quarter, at_eighth = high_res_features
        constant, last_bias = constant + _fours(at_eighth), last_bias + _sixteens(at_quarter)
    return SharedPixels(
        blocks=tuple(blocks),
        last_keys=_project(last.k_proj, last.num_heads, parts, positions),
        last_values=_project(last.v_proj, last.num_heads, parts, positions),
        upscaled=PixelParts(parts.base @ weight.T, parts.carried @ weight.T, constant),
        last_bias=last_bias,
        size_hw=(image_embeddings.shape[2], image_embeddings.shape[3]),
    )


def _share_block(
    block: TwoWayAttentionBlock, parts: PixelParts, positions: torch.Tensor
) -> tuple[SharedBlock, PixelParts]:
    """A block's own shared products, and the parts as it leaves them."""
    to_image, from_image = block.cross_attn_token_to_image, block.cross_attn_image_to_token
    carried = [parts.carried] if len(parts.carried) else []
    grown = torch.cat([*carried, _output_rows(from_image, parts.constant)])
    base, grown = _without_mean(parts.base), _without_mean(grown)
    norm = SharedNorm(
        carried=(grown.flatten(0, 1) @ grown.flatten(0, 1).T).view(*grown.shape[:2], -1),
        cross=grown @ base.T,
        base_squares=base.square().sum(1),
        n_channels=base.shape[1],
        eps=block.norm4.eps,
    )
    shared = SharedBlock(
        keys=_project(to_image.k_proj, to_image.num_heads, parts, positions),
        values=_project(to_image.v_proj, to_image.num_heads, parts, positions),
        queries=_project(from_image.q_proj, from_image.num_heads, parts, positions),
        norm=norm,
    )
    weight = block.norm4.weight
    return shared, PixelParts(weight * base, weight * grown, block.norm4.bias)


def _output_rows(attention: Attention, constant: torch.Tensor) -> torch.Tensor:
    """What a head's channels, and a one, add to a pixel: (heads, e, C).

    The one adds all that is constant. The first head alone has it: its probabilities sum to one.
    """
    weight = attention.out_proj.weight.T.unflatten(0, (attention.num_heads, -1))
    of_one = torch.zeros_like(weight[:, :1])
    of_one[0, 0] = constant + attention.out_proj.bias
    return torch.cat([weight, of_one], dim=1)


def _project(
    linear: nn.Linear, n_heads: int, parts: PixelParts, positions: torch.Tensor
) -> Projected:
    weight = linear.weight.unflatten(0, (n_heads, -1))
    return Projected(
        base=weight @ parts.base.T,
        positions=weight @ positions.T,
        carried=weight @ parts.carried.flatten(0, 1).T,
        constant=weight @ parts.constant + linear.bias.unflatten(0, (n_heads, -1)),
    )


def transformer_layers(
    decoder: MaskDecoder,
) -> tuple[TwoWayTransformer, list[TwoWayAttentionBlock]]:
    """The transformer and its blocks, as what they are."""
    transformer = decoder.transformer
    assert isinstance(transformer, TwoWayTransformer)
    return transformer, [b for b in transformer.layers if isinstance(b, TwoWayAttentionBlock)]


def can_share(decoder: MaskDecoder) -> bool:
    """Whether a decoder's own class declares a fast form, and its layers are those of that form."""
    declared = vars(type(decoder)).get("has_fast_form", False)
    if not declared or type(decoder.transformer) is not TwoWayTransformer:
        return False
    _, _, first, _, second = decoder.output_upscaling
    return all(
        isinstance(activation, nn.GELU) and activation.approximate == "none"
        for activation in (first, second)
    )


def upscaling_layers(
    decoder: MaskDecoder,
) -> tuple[nn.ConvTranspose2d, LayerNorm2d, nn.ConvTranspose2d]:
    """The layers that have weights, of a decoder that `can_share`."""
    first, norm, _, second, _ = decoder.output_upscaling
    assert isinstance(first, nn.ConvTranspose2d)
    assert isinstance(norm, LayerNorm2d)
    assert isinstance(second, nn.ConvTranspose2d)
    return first, norm, second


def convolution_as_product(layer: nn.ConvTranspose2d) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (4 C', C) and bias (4 C',) that give the four pixels of each one, row by row.

    That is what a transposed convolution of kernel 2 and stride 2 does.
    """
    assert layer.bias is not None
    return layer.weight.permute(2, 3, 1, 0).flatten(0, 2), layer.bias.repeat(4)


def _as_rows(maps: torch.Tensor) -> torch.Tensor:
    """(1, C, h, w) to (P, C)."""
    return maps[0].flatten(1).T


def _fours(maps: torch.Tensor) -> torch.Tensor:
    """(1, C, 2h, 2w) to (P, 4 C): each pixel's 2 x 2 parts side by side."""
    h, w = maps.shape[2] // 2, maps.shape[3] // 2
    parts = maps[0].unflatten(2, (w, 2)).unflatten(1, (h, 2))  # C, y, row, x, column
    return parts.permute(1, 3, 2, 4, 0).flatten(0, 1).flatten(1)


def _sixteens(maps: torch.Tensor) -> torch.Tensor:
    """(1, C, 4h, 4w) to (4 P, 4 C): a row for each of a pixel's 2 x 2 parts, with its own parts."""
    h, w = maps.shape[2] // 4, maps.shape[3] // 4
    parts = maps[0].unflatten(2, (w, 2, 2)).unflatten(1, (h, 2, 2))
    # C, y, part's row, its part's row, x, part's column, its part's column
    return parts.permute(1, 4, 2, 5, 3, 6, 0).flatten(0, 3).flatten(1)


def _without_mean(x: torch.Tensor) -> torch.Tensor:
    return x - x.mean(-1, keepdim=True)
