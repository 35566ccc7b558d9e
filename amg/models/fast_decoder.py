"""The mask decoder's numbers by shorter ways: what prompts share once, small factors first.

The same algebra as `MaskDecoder` and `TwoWayTransformer`, whose modules hold the weights. A prompt
has some seven tokens and thousands of pixels, so

- what depends on the image alone (the first block's keys, values and queries) is computed once for
  all prompts that come together, however few of them the cache holds at a time;
- a projection of the pixels is moved to the tokens' side of a product, where it is a matrix of
  T x C instead of h * w x C: q (W_k x) = (q W_k) x and P (W_v x) = (P x) W_v;
- a constant added to all scores of a query, such as q b_k, vanishes in the softmax;
- a transposed convolution of kernel 2 and stride 2 is a matrix product: four pixels for each one.

Pixels are (N, P, C) all the way, P = h * w, so that nothing is transposed but the finished logits.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from amg.models.layers import LayerNorm2d
from amg.models.mask_decoder import DecodedTokens, MaskDecoder
from amg.models.two_way_transformer import Attention, TwoWayAttentionBlock, TwoWayTransformer


@dataclass(frozen=True, slots=True)
class SharedPixels:
    """What all prompts on an image have in common.

    `pixels` with their dense embedding, and `pe`, their positions: (1, P, C). `queries`, `keys` and
    `values` (heads, P, c) are the first block's projections of them.
    """

    pixels: torch.Tensor
    pe: torch.Tensor
    queries: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    size_hw: tuple[int, int]


def share_pixels(
    decoder: MaskDecoder,
    image_embeddings: torch.Tensor,
    image_pe: torch.Tensor,
    dense_prompt_embeddings: torch.Tensor,
) -> SharedPixels:
    """Prepare an image for `attend`. All maps are (1, C, h, w)."""
    _, (first, *_) = _transformer(decoder)
    pixels = _as_rows(image_embeddings + dense_prompt_embeddings)
    pe = _as_rows(image_pe)
    to_image, from_image = first.cross_attn_token_to_image, first.cross_attn_image_to_token
    return SharedPixels(
        pixels=pixels,
        pe=pe,
        queries=from_image.split_heads(from_image.q_proj(pixels + pe))[0],
        keys=to_image.split_heads(to_image.k_proj(pixels + pe))[0],
        values=to_image.split_heads(to_image.v_proj(pixels))[0],
        size_hw=(image_embeddings.shape[2], image_embeddings.shape[3]),
    )


def attend(
    decoder: MaskDecoder, shared: SharedPixels, sparse_prompt_embeddings: torch.Tensor
) -> DecodedTokens:
    """`MaskDecoder.attend` for N prompts (N, T, C) on one image."""
    output_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    output_tokens = output_tokens.expand(len(sparse_prompt_embeddings), -1, -1)
    token_pe = torch.cat([output_tokens, sparse_prompt_embeddings], dim=1)

    transformer, (first, *others) = _transformer(decoder)
    tokens, pixels = _first_block(first, token_pe, shared)
    for block in others:
        tokens, pixels = _block(block, tokens, pixels, token_pe, shared.pe)
    update = _tokens_to_pixels(
        transformer.final_attn_token_to_image, tokens + token_pe, pixels + shared.pe, pixels
    )
    tokens = transformer.norm_final_attn(tokens + update)
    return DecodedTokens(
        pixels=pixels.transpose(1, 2).unflatten(2, shared.size_hw),
        mask_tokens=tokens[:, 1 : 1 + decoder.num_mask_tokens],
        predicted_iou=decoder.iou_prediction_head(tokens[:, 0]),
    )


def draw(
    decoder: MaskDecoder, decoded: DecodedTokens, prompts: torch.Tensor, masks: slice
) -> torch.Tensor:
    """`MaskDecoder.upscale` and `MaskDecoder.draw` in one, for some prompts, bool (N,).

    decoded: what `attend` here gave. Gives logits (K, M, 4h, 4w) of the masks in the slice.
    """
    weights = decoder.hypernetwork_weights(decoded.mask_tokens[prompts])[:, masks]
    h, w = decoded.pixels.shape[-2:]
    first, norm, first_activation, second, second_activation = decoder.output_upscaling
    assert isinstance(norm, LayerNorm2d)
    x = _transposed_convolution(first, _as_rows(decoded.pixels)[prompts])
    x = F.layer_norm(x, norm.weight.shape, norm.weight, norm.bias, norm.eps)
    x = second_activation(_transposed_convolution(second, first_activation(x)))
    logits = x.flatten(1, -2) @ weights.transpose(1, 2)
    # Rows are (y, x, row in the first 2 x 2, column in it, row in the second, column in it).
    grid = logits.unflatten(1, (h, w, 2, 2, 2, 2))
    return grid.permute(0, 7, 1, 3, 5, 2, 4, 6).reshape(*weights.shape[:2], 4 * h, 4 * w)


def _as_rows(maps: torch.Tensor) -> torch.Tensor:
    """(N, C, h, w) to (N, P, C)."""
    return maps.flatten(2).transpose(1, 2)


def _transposed_convolution(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """(..., C) to (..., 4, C'): the four pixels of each one, row by row."""
    assert isinstance(layer, nn.ConvTranspose2d)
    assert layer.bias is not None
    weight = layer.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (4 C', C)
    return F.linear(x, weight, layer.bias.repeat(4)).unflatten(-1, (4, -1))


def _transformer(decoder: MaskDecoder) -> tuple[TwoWayTransformer, list[TwoWayAttentionBlock]]:
    """The transformer and its blocks, as what they are."""
    transformer = decoder.transformer
    assert isinstance(transformer, TwoWayTransformer)
    return transformer, [b for b in transformer.layers if isinstance(b, TwoWayAttentionBlock)]


def _first_block(
    block: TwoWayAttentionBlock, token_pe: torch.Tensor, shared: SharedPixels
) -> tuple[torch.Tensor, torch.Tensor]:
    """`TwoWayAttentionBlock.forward` on tokens and pixels that no prompt has changed yet."""
    tokens = block.norm1(block.self_attn(token_pe, token_pe, token_pe))
    attention = block.cross_attn_token_to_image
    q = attention.split_heads(_scaled(attention, attention.q_proj(tokens + token_pe)))
    # All tokens of all prompts in one product for each head.
    scores = q.transpose(0, 1).flatten(1, 2) @ shared.keys.transpose(1, 2)
    attended = (scores.softmax(-1) @ shared.values).unflatten(1, token_pe.shape[:2])
    tokens = tokens + attention.out_proj(attended.permute(1, 2, 0, 3).flatten(2))
    tokens = _update_tokens(block, tokens)

    attention = block.cross_attn_image_to_token
    k = attention.split_heads(_scaled(attention, attention.k_proj(tokens + token_pe)))
    scores = k @ shared.queries.transpose(1, 2)  # (N, heads, T, P)
    return tokens, block.norm4(_add_values(attention, shared.pixels, scores, tokens))


def _block(
    block: TwoWayAttentionBlock,
    tokens: torch.Tensor,
    pixels: torch.Tensor,
    token_pe: torch.Tensor,
    pixel_pe: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`TwoWayAttentionBlock.forward`; pixels (N, P, C)."""
    placed = tokens + token_pe
    tokens = block.norm1(tokens + block.self_attn(placed, placed, tokens))
    placed_pixels = pixels + pixel_pe
    tokens = tokens + _tokens_to_pixels(
        block.cross_attn_token_to_image, tokens + token_pe, placed_pixels, pixels
    )
    tokens = _update_tokens(block, tokens)

    attention = block.cross_attn_image_to_token
    k = attention.split_heads(_scaled(attention, attention.k_proj(tokens + token_pe)))
    bias = attention.q_proj.bias.unflatten(0, (attention.num_heads, -1, 1))
    constant = (k @ bias).flatten(1, 2)  # differs between tokens: it stays
    absorbed = _absorb(k, attention.q_proj)
    scores = torch.baddbmm(constant, absorbed, placed_pixels.transpose(1, 2))
    scores = scores.unflatten(1, k.shape[1:3])
    return tokens, block.norm4(_add_values(attention, pixels, scores, tokens))


def _update_tokens(block: TwoWayAttentionBlock, tokens: torch.Tensor) -> torch.Tensor:
    tokens = block.norm2(tokens)
    return block.norm3(tokens + block.mlp(tokens))


def _tokens_to_pixels(
    attention: Attention, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
) -> torch.Tensor:
    """Attention of tokens (N, T, C) over pixels (N, P, C); gives (N, T, C)."""
    q = attention.split_heads(_scaled(attention, attention.q_proj(queries)))
    scores = _absorb(q, attention.k_proj) @ keys.transpose(1, 2)
    mixed = (scores.softmax(-1) @ values).unflatten(1, q.shape[1:3])  # (N, heads, T, C)
    weight = attention.v_proj.weight.unflatten(0, (attention.num_heads, -1))
    attended = (mixed @ weight.transpose(1, 2)).transpose(1, 2).flatten(2)
    return attention.out_proj(attended + attention.v_proj.bias)  # probabilities sum to one


def _add_values(
    attention: Attention, pixels: torch.Tensor, scores: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """Pixels (N or 1, P, C) and what they attend to by scores (N, heads, T, P), added."""
    v = attention.split_heads(attention.v_proj(tokens))
    weight = attention.out_proj.weight.T.unflatten(0, (attention.num_heads, -1))
    projected = v @ weight  # (N, heads, T, C)
    projected[:, 0] += attention.out_proj.bias  # one head's probabilities sum to one
    probabilities = scores.softmax(2).flatten(1, 2)
    return torch.baddbmm(pixels, probabilities.transpose(1, 2), projected.flatten(1, 2))


def _absorb(tokens: torch.Tensor, projection: nn.Linear) -> torch.Tensor:
    """Heads of tokens (N, heads, T, c) times a projection's rows: (N, heads * T, C)."""
    weight = projection.weight.unflatten(0, (tokens.shape[1], -1))
    return (tokens @ weight).flatten(1, 2)


def _scaled(attention: Attention, x: torch.Tensor) -> torch.Tensor:
    return x * (x.shape[-1] // attention.num_heads) ** -0.5
