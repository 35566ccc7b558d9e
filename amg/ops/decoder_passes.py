"""The mask decoder's passes over large arrays: each array read and written once.

Compiled for float32 on a CPU; elsewhere in torch's own steps, which also say what is meant.
N prompts have T tokens each, attention has `heads`, and pixels are P in a row. Arrays are changed
in place.
"""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from amg.ops.compiled import compiled_sums

Floats = npt.NDArray[np.float32]

_TILE = 256  # pixels whose sums stay in the first-level cache
_LANES = 16  # of the widest vectors


def is_compiled_for(x: torch.Tensor) -> bool:
    """Whether these passes are compiled loops for such an array."""
    return x.device.type == "cpu" and x.dtype == torch.float32


def softmax_over_tokens(
    mixing: torch.Tensor,
    first_row: int,
    of_base: torch.Tensor,
    of_positions: torch.Tensor,
    scale: torch.Tensor,
    constants: torch.Tensor,
) -> None:
    """Each pixel's attention to the tokens of its prompt, from the scores' four parts.

    The scores are rows of `mixing` (N, R, P) from `first_row` on, heads times T of them, plus
    `scale` (N, P) times `of_base` (heads, N, T, P), plus `of_positions`, alike, plus `constants`
    (N, heads, T). The rows become their softmax over T.
    """
    if is_compiled_for(mixing):
        _softmax_over_tokens(
            *_arrays(mixing), first_row, *_arrays(of_base, of_positions, scale, constants)
        )
        return
    n_heads, _, n_tokens, _ = of_base.shape
    rows = mixing[:, first_row : first_row + n_heads * n_tokens].unflatten(1, (n_heads, n_tokens))
    rows += _placed(of_base, of_positions, scale) + constants.unsqueeze(-1)
    rows.copy_(rows.softmax(2))


def softmax_over_pixels(
    scores: torch.Tensor, of_base: torch.Tensor, of_positions: torch.Tensor, scale: torch.Tensor
) -> None:
    """Each token's attention to the pixels, from the scores' three parts.

    The scores are `scores` (N, heads * T, P), plus `scale` (N, P) times `of_base` (heads, N, T, P),
    plus `of_positions`, alike. `scores` become their softmax over P, `of_base` that times `scale`.
    """
    if is_compiled_for(scores):
        _softmax_over_pixels(*_arrays(scores, of_base, of_positions, scale))
        return
    rows = scores.unflatten(1, (of_base.shape[0], -1))
    rows += _placed(of_base, of_positions, scale)
    rows.copy_(rows.softmax(-1))
    of_base.copy_((rows * scale[:, None, None]).transpose(0, 1))


def _placed(of_base: torch.Tensor, of_positions: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """(N, heads, T, P)."""
    return (of_base * scale[:, None] + of_positions).transpose(0, 1)


def normalise_pixels(
    mixing: torch.Tensor,
    products: torch.Tensor,
    cross: torch.Tensor,
    scale: torch.Tensor,
    base_squares: torch.Tensor,
    n_channels: int,
    eps: float,
) -> None:
    """Divide pixels by their deviation: `mixing` (N, R', P), its first R rows, and `scale` (N, P).

    The squares of a pixel's channels sum to `scale`^2 times `base_squares` (P,), plus the sum over
    rows of mixing times (`products` (N, R, P) + 2 `scale` times `cross` (R / T, N, T, P)).
    """
    if is_compiled_for(mixing):
        numbers = np.float32(n_channels), np.float32(eps)
        _normalise_pixels(*_arrays(mixing, products, cross, scale, base_squares), *numbers)
        return
    rows = mixing[:, : products.shape[1]]
    crossed = cross.transpose(0, 1).flatten(1, 2) * (2 * scale.unsqueeze(1))
    squares = scale.square() * base_squares + (rows * (products + crossed)).sum(1)
    factor = (squares.clamp(min=0) / n_channels + eps).rsqrt()
    rows *= factor.unsqueeze(1)
    scale *= factor


def add_norm_gelu(
    x: torch.Tensor,
    base: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    norm_weight: torch.Tensor,
    norm_bias: torch.Tensor,
    eps: float,
) -> None:
    """GELU of the layer norm, over groups of C channels, of x + scale base + bias, into `x`.

    x (N, P, 4 C), base (P, 4 C), scale (N, P), bias (1 or P, 4 C); the norm's (C,).
    """
    if is_compiled_for(x):
        weights = bias, norm_weight, norm_bias
        _add_norm_gelu(*_arrays(x, base, scale, *weights), np.float32(eps))
        return
    x += scale.unsqueeze(-1) * base + bias
    groups = x.unflatten(-1, (-1, len(norm_weight)))
    x.copy_(F.gelu(F.layer_norm(groups, norm_weight.shape, norm_weight, norm_bias, eps)).flatten(2))


def gelu_dot(
    x: torch.Tensor,
    bias: torch.Tensor,
    weights: torch.Tensor,
    logits: torch.Tensor,
    first_pixel: int,
    width: int,
) -> None:
    """4 x 4 logits for each pixel: the products of GELU(x + bias) with each mask's weights.

    x (N, 4 P, 4 C): P pixels from `first_pixel` on, in rows of `width`; their 2 x 2 parts; and
    2 x 2 parts of these. bias (1 or 4 P, 4 C), weights (N, M, C). Gives values of `logits`
    (N, M, 4 h, 4 w); `x` is lost.
    """
    if is_compiled_for(x):
        _gelu_dot(*_arrays(x, bias, weights, logits), first_pixel, width)
        return
    n_pixels = x.shape[1] // 4
    features = F.gelu(x + bias).unflatten(2, (4, -1)).flatten(1, 2)
    products = (features @ weights.transpose(1, 2)).unflatten(1, (n_pixels, 2, 2, 2, 2))
    by_pixel = logits.unflatten(3, (width, 4)).unflatten(2, (-1, 4)).permute(0, 2, 4, 1, 3, 5)
    pixels = torch.arange(first_pixel, first_pixel + n_pixels, device=x.device)
    # (N, P, M, rows, columns): the first part's row, then the second's.
    tiles = products.permute(0, 1, 6, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)
    by_pixel[:, pixels // width, pixels % width] = tiles


def _arrays(*tensors: torch.Tensor) -> tuple[Floats, ...]:
    return tuple(tensor.numpy() for tensor in tensors)


@intrinsic
def _float_of_bits(context, bits):  # noqa: ANN001, ANN202 (numba's own kinds)
    def generate(context, builder, signature, arguments):  # noqa: ANN001, ANN202
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@compiled_sums
def _exp(x: np.float32) -> np.float32:
    """e^x for x <= 0, to two units in the last place; below -87 its value there, 1.6e-38.

    2^n by its bits, times a polynomial on [-ln 2 / 2, ln 2 / 2] (its Taylor coefficients, the
    higher ones adjusted for the interval, as in the Cephes library's `expf`).
    """
    x = max(x, np.float32(-87))
    n = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    r = x - n * np.float32(0.693359375)  # ln 2 in two parts: this product is exact
    r -= n * np.float32(-2.12194440e-4)
    y = np.float32(1.9875691e-4)
    y = y * r + np.float32(1.3981999e-3)
    y = y * r + np.float32(8.3334519e-3)
    y = y * r + np.float32(4.1665796e-2)
    y = y * r + np.float32(1.6666666e-1)
    y = y * r + np.float32(0.5)
    y = y * r * r + r + np.float32(1)
    bits = (np.int32(n) + np.int32(127)) << np.int32(23)
    return y * _float_of_bits(bits)  # pyright: ignore[reportCallIssue]


@compiled_sums
def _gelu(v: np.float32) -> np.float32:
    """GELU, v / 2 (1 + erf(v / sqrt 2)): erf to 5e-7 by a rational function on [-4, 4].

    Numerator and denominator are our own fit: least squares, reweighted towards the least maximum.
    """
    x = v * np.float32(0.70710678)
    z = x * x
    p = np.float32(1.9748406e-6)
    p = p * z + np.float32(2.8804084e-4)
    p = p * z + np.float32(4.0036053e-3)
    p = p * z + np.float32(5.3467348e-2)
    p = p * z + np.float32(1.9624798e-1)
    p = p * z + np.float32(1.1283790)
    q = np.float32(3.7480947e-5)
    q = q * z + np.float32(1.2163507e-3)
    q = q * z + np.float32(1.5444338e-2)
    q = q * z + np.float32(1.1647601e-1)
    q = q * z + np.float32(5.0725138e-1)
    q = q * z + np.float32(1)
    erf = x * p / q
    if z > np.float32(16):
        erf = np.float32(1) if x > 0 else np.float32(-1)
    return np.float32(0.5) * v * (np.float32(1) + erf)


@compiled_sums
def _softmax_over_tokens(
    mixing: Floats,
    first_row: int,
    of_base: Floats,
    of_positions: Floats,
    scale: Floats,
    constants: Floats,
) -> None:
    n_heads, n_prompts, n_tokens, n_pixels = of_base.shape
    largest, total = np.empty(_TILE, np.float32), np.empty(_TILE, np.float32)
    for n in range(n_prompts):
        for head in range(n_heads):
            rows = mixing[n, first_row + head * n_tokens :]
            for start in range(0, n_pixels, _TILE):
                size = min(_TILE, n_pixels - start)
                tile = slice(start, start + size)
                factor = scale[n, tile]
                for t in range(n_tokens):
                    row, constant = rows[t, tile], constants[n, head, t]
                    base, positions = of_base[head, n, t, tile], of_positions[head, n, t, tile]
                    for p in range(size):
                        row[p] += factor[p] * base[p] + positions[p] + constant
                        largest[p] = max(largest[p], row[p]) if t else row[p]
                total[:size] = 0
                for t in range(n_tokens):
                    row = rows[t, tile]
                    for p in range(size):
                        row[p] = _exp(row[p] - largest[p])
                        total[p] += row[p]
                for p in range(size):
                    total[p] = np.float32(1) / total[p]
                for t in range(n_tokens):
                    row = rows[t, tile]
                    for p in range(size):
                        row[p] *= total[p]


@compiled_sums
def _softmax_over_pixels(
    scores: Floats, of_base: Floats, of_positions: Floats, scale: Floats
) -> None:
    n_heads, n_prompts, n_tokens, n_pixels = of_base.shape
    for n in range(n_prompts):
        factor = scale[n]
        for head in range(n_heads):
            for t in range(n_tokens):
                row, base = scores[n, head * n_tokens + t], of_base[head, n, t]
                positions = of_positions[head, n, t]
                for p in range(n_pixels):
                    row[p] += factor[p] * base[p] + positions[p]
                largest = _largest(row)
                total = np.float32(0)
                for p in range(n_pixels):
                    row[p] = _exp(row[p] - largest)
                    total += row[p]
                inverse = np.float32(1) / total
                for p in range(n_pixels):
                    row[p] *= inverse
                    base[p] = row[p] * factor[p]


@compiled_sums
def _largest(row: Floats) -> np.float32:
    """The largest value; lane by lane, since compilers do not reorder this by themselves."""
    lanes = np.full(_LANES, row[0])
    n_whole = len(row) // _LANES * _LANES
    for start in range(0, n_whole, _LANES):
        for lane in range(_LANES):
            lanes[lane] = max(lanes[lane], row[start + lane])
    largest = lanes[0]
    for value in lanes:
        largest = max(largest, value)
    for value in row[n_whole:]:
        largest = max(largest, value)
    return largest


@compiled_sums
def _normalise_pixels(
    mixing: Floats,
    products: Floats,
    cross: Floats,
    scale: Floats,
    base_squares: Floats,
    n_channels: np.float32,
    eps: np.float32,
) -> None:
    n_prompts, n_rows, n_pixels = products.shape
    n_tokens = cross.shape[2]
    squares = np.empty(_TILE, np.float32)
    for n in range(n_prompts):
        for start in range(0, n_pixels, _TILE):
            size = min(_TILE, n_pixels - start)
            tile = slice(start, start + size)
            factor, of_base = scale[n, tile], base_squares[tile]
            for p in range(size):
                squares[p] = factor[p] * factor[p] * of_base[p]
            for r in range(n_rows):
                row, product = mixing[n, r, tile], products[n, r, tile]
                crossed = cross[r // n_tokens, n, r % n_tokens, tile]
                for p in range(size):
                    squares[p] += row[p] * (product[p] + np.float32(2) * factor[p] * crossed[p])
            for p in range(size):
                mean = max(squares[p], np.float32(0)) / n_channels
                squares[p] = np.float32(1) / np.sqrt(mean + eps)
                factor[p] *= squares[p]
            for r in range(n_rows):
                row = mixing[n, r, tile]
                for p in range(size):
                    row[p] *= squares[p]


@compiled_sums
def _add_norm_gelu(
    x: Floats,
    base: Floats,
    scale: Floats,
    bias: Floats,
    norm_weight: Floats,
    norm_bias: Floats,
    eps: np.float32,
) -> None:
    n_prompts, n_pixels, n_values = x.shape
    size = len(norm_weight)
    inverse_size = np.float32(1) / np.float32(size)
    for n in range(n_prompts):
        for p in range(n_pixels):
            row, of_base, factor = x[n, p], base[p], scale[n, p]
            own_bias = bias[p if len(bias) > 1 else 0]
            for k in range(n_values):
                row[k] += factor * of_base[k] + own_bias[k]
            for start in range(0, n_values, size):
                group = row[start : start + size]
                mean = np.float32(0)
                for k in range(size):
                    mean += group[k]
                mean *= inverse_size
                variance = np.float32(0)
                for k in range(size):
                    variance += (group[k] - mean) * (group[k] - mean)
                inverse = np.float32(1) / np.sqrt(variance * inverse_size + eps)
                for k in range(size):
                    group[k] = _gelu((group[k] - mean) * inverse * norm_weight[k] + norm_bias[k])


@compiled_sums
def _gelu_dot(
    x: Floats, bias: Floats, weights: Floats, logits: Floats, first_pixel: int, width: int
) -> None:
    n_prompts, n_parts, n_values = x.shape
    _, n_masks, size = weights.shape
    for n in range(n_prompts):
        for part in range(n_parts):
            row, own_bias = x[n, part], bias[part if len(bias) > 1 else 0]
            for k in range(n_values):
                row[k] = _gelu(row[k] + own_bias[k])
            pixel = first_pixel + part // 4
            top = pixel // width * 4 + part % 4 // 2 * 2
            left = pixel % width * 4 + part % 2 * 2
            for m in range(n_masks):
                weight = weights[n, m]
                for k in range(4):
                    features = row[k * size : (k + 1) * size]
                    product = np.float32(0)
                    for c in range(size):
                        product += features[c] * weight[c]
                    logits[n, m, top + k // 2, left + k % 2] = product
