"""The mask decoder's numbers by shorter ways: what prompts share once, small factors first.

The same algebra as `MaskDecoder` and `TwoWayTransformer`, whose modules hold the weights. A prompt
has some seven tokens and thousands of pixels, so

- what depends on the image alone (the first block's keys, values and queries) is computed once;
- a projection of the pixels is moved to the tokens' side of a product, where it is a matrix of
  T x C instead of h * w x C: q (W_k x) = (q W_k) x and P (W_v x) = (P x) W_v;
- a constant added to all scores of a query, such as q b_k, vanishes in the softmax;
- a transposed convolution of kernel 2 and stride 2 is a matrix product: four pixels for each one.

Pixels are (N, P, C) all the way, P = h * w, so that nothing is transposed but the finished logits.
"""

import torch
import torch.nn.functional as F
from torch import nn

from amg.models.layers import LayerNorm2d
from amg.models.mask_decoder import DecodedTokens, MaskDecoder
from amg.models.two_way_transformer import Attention, TwoWayAttentionBlock, TwoWayTransformer


def attend(
    decoder: MaskDecoder,
    image_embeddings: torch.Tensor,
    image_pe: torch.Tensor,
    sparse_prompt_embeddings: torch.Tensor,
    dense_prompt_embeddings: torch.Tensor,
) -> DecodedTokens:
    """`MaskDecoder.attend` for N prompts on one image with one dense embedding, (1, C, h, w)."""
    output_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    output_tokens = output_tokens.expand(len(sparse_prompt_embeddings), -1, -1)
    token_pe = torch.cat([output_tokens, sparse_prompt_embeddings], dim=1)
    size_hw = image_embeddings.shape[-2:]
    pixels = _as_rows(image_embeddings + dense_prompt_embeddings)
    pixel_pe = _as_rows(image_pe)

    transformer = decoder.transformer
    assert isinstance(transformer, TwoWayTransformer)
    tokens = token_pe
    for layer in transformer.layers:
        assert isinstance(layer, TwoWayAttentionBlock)
        tokens, pixels = _block(layer, tokens, pixels, token_pe, pixel_pe)
    update = _tokens_to_pixels(
        transformer.final_attn_token_to_image, tokens + token_pe, pixels + pixel_pe, pixels
    )
    tokens = transformer.norm_final_attn(tokens + update)
    return DecodedTokens(
        pixels=pixels.transpose(1, 2).unflatten(2, size_hw),
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
    x = _transposed_convolution(first, _as_rows(decoded.pixels)[prompts])
    assert isinstance(norm, LayerNorm2d)
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


def _block(
    layer: TwoWayAttentionBlock,
    tokens: torch.Tensor,
    pixels: torch.Tensor,
    token_pe: torch.Tensor,
    pixel_pe: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`TwoWayAttentionBlock.forward`; pixels (N or 1, P, C)."""
    if layer.skip_first_layer_pe:
        tokens = layer.self_attn(tokens, tokens, tokens)
    else:
        placed = tokens + token_pe
        tokens = tokens + layer.self_attn(placed, placed, tokens)
    tokens = layer.norm1(tokens)

    placed_pixels = pixels + pixel_pe
    tokens = tokens + _tokens_to_pixels(
        layer.cross_attn_token_to_image, tokens + token_pe, placed_pixels, pixels
    )
    tokens = layer.norm2(tokens)
    tokens = layer.norm3(tokens + layer.mlp(tokens))

    attention = layer.cross_attn_image_to_token
    updated = _pixels_to_tokens(attention, pixels, placed_pixels, tokens + token_pe, tokens)
    return tokens, layer.norm4(updated)


def _tokens_to_pixels(
    attention: Attention, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
) -> torch.Tensor:
    """Attention of tokens (N, T, C) over pixels (N or 1, P, C); gives (N, T, C)."""
    q = _scaled(attention, attention.q_proj(queries))
    if len(keys) == 1:  # shared by all prompts: projected once, all tokens in one product
        k, v = (
            _split_heads(attention, project(x))[0]
            for project, x in ((attention.k_proj, keys), (attention.v_proj, values))
        )
        n, t = queries.shape[:2]
        scores = _split_heads(attention, q).transpose(0, 1).flatten(1, 2) @ k.transpose(1, 2)
        attended = (scores.softmax(-1) @ v).unflatten(1, (n, t)).permute(1, 2, 0, 3)
        return attention.out_proj(attended.flatten(2))
    by_head = _split_heads(attention, q)
    scores = _absorb(by_head, attention.k_proj) @ keys.transpose(1, 2)
    mixed = (scores.softmax(-1) @ values).unflatten(1, by_head.shape[1:3])  # (N, heads, T, C)
    weight = attention.v_proj.weight.unflatten(0, (attention.num_heads, -1))
    attended = (mixed @ weight.transpose(1, 2)).transpose(1, 2).flatten(2)
    return attention.out_proj(attended + attention.v_proj.bias)  # probabilities sum to one


def _pixels_to_tokens(
    attention: Attention,
    pixels: torch.Tensor,
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
) -> torch.Tensor:
    """Pixels (N or 1, P, C) and their attention over tokens (N, T, C), added: (N, P, C)."""
    k = _split_heads(attention, _scaled(attention, attention.k_proj(keys)))
    if len(queries) == 1:
        q = _split_heads(attention, attention.q_proj(queries))
        scores = k @ q.transpose(2, 3)  # (N, heads, T, P)
    else:
        bias = attention.q_proj.bias.unflatten(0, (attention.num_heads, -1, 1))
        constant = (k @ bias).flatten(1, 2)  # differs between tokens: it stays
        absorbed = _absorb(k, attention.q_proj)
        scores = torch.baddbmm(constant, absorbed, queries.transpose(1, 2))
        scores = scores.unflatten(1, k.shape[1:3])
    probabilities = scores.softmax(2).flatten(1, 2)

    v = _split_heads(attention, attention.v_proj(values))
    weight = attention.out_proj.weight.T.unflatten(0, (attention.num_heads, -1))
    projected = v @ weight  # (N, heads, T, C)
    projected[:, 0] += attention.out_proj.bias  # one head's probabilities sum to one
    return torch.baddbmm(pixels, probabilities.transpose(1, 2), projected.flatten(1, 2))


def _absorb(tokens: torch.Tensor, projection: nn.Linear) -> torch.Tensor:
    """Heads of tokens (N, heads, T, c) times a projection's rows: (N, heads * T, C)."""
    weight = projection.weight.unflatten(0, (tokens.shape[1], -1))
    return (tokens @ weight).flatten(1, 2)


def _scaled(attention: Attention, x: torch.Tensor) -> torch.Tensor:
    return x * (x.shape[-1] // attention.num_heads) ** -0.5


def _split_heads(attention: Attention, x: torch.Tensor) -> torch.Tensor:
    """(N, L, C) to (N, heads, L, c)."""
    return x.unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
