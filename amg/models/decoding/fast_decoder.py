"""The mask decoder's numbers by shorter ways: a prompt's pixels are never written out.

The same algebra as `MaskDecoder` and `TwoWayTransformer`, whose modules hold the weights, on pixels
in the parts that `shared_pixels.py` explains. With some seven tokens against thousands of pixels,
every product is one of `mixing` (N, R, P) with small matrices of a prompt, or one of all prompts'
tokens with what the image shares.

It agrees with the plain modules to rounding. A constant added to all scores of a query vanishes in
the softmax, and is left out.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from amg.models.decoding.shared_pixels import (
    Projected,
    SharedBlock,
    SharedNorm,
    SharedPixels,
    convolution_as_product,
    transformer_layers,
    upscaling_layers,
)
from amg.models.modules.mask_decoder import DecodedTokens, MaskDecoder
from amg.models.modules.two_way_transformer import Attention, TwoWayAttentionBlock
from amg.ops import decoder_passes

_TILE_ELEMENTS = 2**18  # of a prompt's upscaled pixels on a CPU: its cache holds them


@dataclass(slots=True)
class PromptPixels:
    """The part of N prompts' pixels that is their own.

    `scale` (N, P) and `values` (N, G, T, e); `mixing` (N, R, P) are the first `n_rows` rows of
    `room`, which has room for all blocks.
    """

    scale: torch.Tensor
    values: torch.Tensor
    room: torch.Tensor
    n_rows: int = 0

    @property
    def mixing(self) -> torch.Tensor:
        """Its rows so far."""
        return self.room[:, : self.n_rows]

    def __getitem__(self, prompts: torch.Tensor) -> "PromptPixels":
        """Some of the prompts, bool (N,)."""
        return PromptPixels(
            self.scale[prompts], self.values[prompts], self.room[prompts], self.n_rows
        )


def attend(
    decoder: MaskDecoder, shared: SharedPixels, sparse_prompt_embeddings: torch.Tensor
) -> DecodedTokens:
    """`MaskDecoder.attend` for N prompts (N, T, C) on one image; its pixels are `PromptPixels`."""
    output_tokens = decoder.output_tokens().expand(len(sparse_prompt_embeddings), -1, -1)
    token_pe = torch.cat([output_tokens, sparse_prompt_embeddings], dim=1)

    transformer, blocks = transformer_layers(decoder)
    pixels = _fresh_pixels(shared, token_pe)
    tokens = token_pe
    for block, shared_block in zip(blocks, shared.blocks, strict=True):
        tokens = _run_block(block, shared_block, tokens, token_pe, pixels)
    last = transformer.final_attn_token_to_image
    update = _attend_to_pixels(
        last, tokens + token_pe, shared.last_keys, shared.last_values, pixels
    )
    return decoder.read(transformer.norm_final_attn(tokens + update), pixels)


def compute_logits(
    decoder: MaskDecoder, shared: SharedPixels, pixels: PromptPixels, weights: torch.Tensor
) -> torch.Tensor:
    """`MaskDecoder.upscale` and `mask_decoder.compute_logits` in one.

    weights (N, M, C / 8) to logits (N, M, 4h, 4w).
    """
    weights = weights.contiguous()
    _, norm, second = upscaling_layers(decoder)
    second_weight, _ = convolution_as_product(second)
    directions = _per_group(pixels.values, shared.upscaled.carried).flatten(1, 2)
    h, w = shared.size_hw
    logits = weights.new_empty(*weights.shape[:2], 4 * h, 4 * w)
    n_channels = shared.upscaled.base.shape[1]
    n_at_once = h * w if weights.is_cuda else max(1, _TILE_ELEMENTS // n_channels)
    for start in range(0, h * w, n_at_once):
        tile = slice(start, start + n_at_once)
        x = pixels.mixing[:, :, tile].transpose(1, 2) @ directions
        decoder_passes.add_norm_gelu(
            x,
            shared.upscaled.base[tile],
            pixels.scale[:, tile].contiguous(),
            _rows(shared.upscaled.constant, tile),
            norm.weight,
            norm.bias,
            norm.eps,
        )
        x = F.linear(x.unflatten(2, (4, -1)).flatten(1, 2), second_weight)
        parts = slice(4 * tile.start, 4 * tile.stop)
        decoder_passes.gelu_dot(x, _rows(shared.last_bias, parts), weights, logits, start, w)
    return logits


def _rows(bias: torch.Tensor, tile: slice) -> torch.Tensor:
    """Those of a tile; a bias of one row is every pixel's."""
    return bias if len(bias) == 1 else bias[tile]


def _fresh_pixels(shared: SharedPixels, tokens: torch.Tensor) -> PromptPixels:
    """The image's pixels, which no prompt has changed yet."""
    n_prompts, n_tokens, _ = tokens.shape
    n_pixels = shared.upscaled.base.shape[0]
    n_groups, n_channels, _ = shared.upscaled.carried.shape
    return PromptPixels(
        scale=tokens.new_ones(n_prompts, n_pixels),
        values=tokens.new_empty(n_prompts, 0, n_tokens, n_channels),
        room=tokens.new_empty(n_prompts, n_groups * n_tokens, n_pixels),
    )


def _run_block(
    block: TwoWayAttentionBlock,
    shared: SharedBlock,
    tokens: torch.Tensor,
    token_pe: torch.Tensor,
    pixels: PromptPixels,
) -> torch.Tensor:
    """`TwoWayAttentionBlock.forward`: gives the tokens, changes the pixels."""
    tokens = block.attend_to_tokens(tokens, token_pe)
    tokens = tokens + _attend_to_pixels(
        block.cross_attn_token_to_image, tokens + token_pe, shared.keys, shared.values, pixels
    )
    tokens = block.transform(tokens)
    _attend_to_tokens(block.cross_attn_image_to_token, tokens, token_pe, shared.queries, pixels)
    _normalise(shared.norm, pixels)
    return tokens


def _attend_to_pixels(
    attention: Attention,
    queries: torch.Tensor,
    keys: Projected,
    values: Projected,
    pixels: PromptPixels,
) -> torch.Tensor:
    """Attention of tokens (N, T, C) over the pixels; gives (N, T, C)."""
    q = attention.split_heads(_scaled(attention, attention.q_proj(queries)))
    scores = _small_scores(q, keys, pixels) @ pixels.mixing
    scaled = _per_head(q, keys.base)
    decoder_passes.softmax_over_pixels(scores, scaled, _per_head(q, keys.positions), pixels.scale)

    of_base = scaled.flatten(1, 2) @ values.base.transpose(1, 2)
    of_base = of_base.unflatten(1, q.shape[::2])  # (heads, N, T, d)
    by_row = scores @ pixels.mixing.transpose(1, 2)  # (N, heads T, R)
    by_row = by_row.unflatten(2, pixels.values.shape[1:3]).transpose(1, 2)
    mixed = (by_row @ pixels.values).transpose(1, 2).flatten(2)  # (N, heads T, G e)
    mixed = mixed.unflatten(1, q.shape[1:3])
    attended = of_base + _per_head(mixed, values.carried.transpose(1, 2))
    attended = attended + values.constant[:, None, None]  # probabilities sum to one
    return attention.out_proj(attended.permute(1, 2, 0, 3).flatten(2))


def _attend_to_tokens(
    attention: Attention,
    tokens: torch.Tensor,
    token_pe: torch.Tensor,
    queries: Projected,
    pixels: PromptPixels,
) -> None:
    """Attention of the pixels over tokens (N, T, C), added to the pixels."""
    k = attention.split_heads(_scaled(attention, attention.k_proj(tokens + token_pe)))
    n_prompts, n_heads, n_tokens, _ = k.shape
    first_row, n_rows = pixels.n_rows, pixels.n_rows + n_heads * n_tokens
    pixels.room[:, first_row:n_rows] = _small_scores(k, queries, pixels) @ pixels.mixing
    decoder_passes.softmax_over_tokens(
        pixels.room,
        first_row,
        _per_head(k, queries.base),
        _per_head(k, queries.positions),
        pixels.scale,
        (k @ queries.constant.unsqueeze(-1)).squeeze(-1),  # differs between tokens: it stays
    )
    v = attention.split_heads(attention.v_proj(tokens))
    with_one = torch.cat([v, v.new_ones(n_prompts, n_heads, n_tokens, 1)], dim=-1)
    pixels.values = torch.cat([pixels.values, with_one], dim=1)
    pixels.n_rows = n_rows


def _normalise(norm: SharedNorm, pixels: PromptPixels) -> None:
    """Divide the pixels by their deviation over the channels; the rest of a norm is shared."""
    values = pixels.values
    small = _expand(_per_group(values, norm.carried).flatten(1, 2), values)  # (N, R, R)
    decoder_passes.normalise_pixels(
        pixels.room,
        small @ pixels.mixing,
        _per_head(values, norm.cross),
        pixels.scale,
        norm.base_squares,
        norm.n_channels,
        norm.eps,
    )


def _small_scores(x: torch.Tensor, projected: Projected, pixels: PromptPixels) -> torch.Tensor:
    """Products of heads (N, heads, T, d) with the directions of `mixing`: (N, heads T, R)."""
    return _expand(_per_head(x, projected.carried).transpose(0, 1).flatten(1, 2), pixels.values)


def _expand(x: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Products with carried channels (N, A, G e) to products with their tokens (N, A, G T)."""
    by_group = x.unflatten(2, values.shape[1::2]).transpose(1, 2)
    return (by_group @ values.transpose(2, 3)).transpose(1, 2).flatten(2)


def _per_head(x: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Each head's (N, T, d) times its (d, S), all prompts in one product: (heads, N, T, S)."""
    n_prompts, _, n_tokens, _ = x.shape
    products = x.transpose(0, 1).flatten(1, 2) @ maps
    return products.unflatten(1, (n_prompts, n_tokens))


def _per_group(values: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """The same, prompts first: (N, G, T, S)."""
    return _per_head(values, maps).transpose(0, 1)


def _scaled(attention: Attention, x: torch.Tensor) -> torch.Tensor:
    return x * (x.shape[-1] // attention.num_heads) ** -0.5
