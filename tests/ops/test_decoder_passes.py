"""The compiled passes against torch's own steps, which float64 takes."""

import pytest
import torch
import torch.nn.functional as F

from amg.ops import decoder_passes

N, HEADS, T = 3, 2, 7
PIXELS = [1, 15, 16, 257, 600]


def random(*shape, seed=0, spread=3.0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * spread


def run_both(function, arrays, *rest):
    """What becomes of float32 arrays, and of the same in float64."""
    outcomes = []
    for dtype in (torch.float32, torch.float64):
        copies = [x.to(dtype, copy=True) if isinstance(x, torch.Tensor) else x for x in arrays]
        assert decoder_passes.is_compiled_for(copies[0]) == (dtype == torch.float32)
        function(*copies, *rest)
        outcomes.append([x for x in copies if isinstance(x, torch.Tensor)])
    return outcomes


def assert_alike(outcomes, tolerance):
    for compiled, expected in zip(*outcomes, strict=True):
        torch.testing.assert_close(compiled.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("n_pixels", PIXELS)
@pytest.mark.parametrize("first_row", [0, 5])
def test_softmax_over_tokens(n_pixels, first_row):
    mixing = random(N, first_row + HEADS * T + 4, n_pixels)
    parts = [random(HEADS, N, T, n_pixels, seed=seed) for seed in (1, 2)]
    scale, constants = random(N, n_pixels, seed=3).abs(), random(N, HEADS, T, seed=4)
    outcomes = run_both(
        decoder_passes.softmax_over_tokens, (mixing, first_row, *parts, scale, constants)
    )
    assert_alike(outcomes, 2e-6)
    changed = outcomes[0][0]
    own = changed[:, first_row : first_row + HEADS * T].unflatten(1, (HEADS, T))
    torch.testing.assert_close(own.sum(2), torch.ones(N, HEADS, n_pixels))
    assert torch.equal(changed[:, :first_row], mixing[:, :first_row])
    assert torch.equal(changed[:, first_row + HEADS * T :], mixing[:, first_row + HEADS * T :])


@pytest.mark.parametrize("n_pixels", PIXELS)
@pytest.mark.parametrize("spread", [3.0, 60.0])
def test_softmax_over_pixels(n_pixels, spread):
    scores = random(N, HEADS * T, n_pixels, spread=spread)
    parts = [random(HEADS, N, T, n_pixels, seed=seed) for seed in (1, 2)]
    scale = random(N, n_pixels, seed=3).abs()
    outcomes = run_both(decoder_passes.softmax_over_pixels, (scores, *parts, scale))
    assert_alike(outcomes, 2e-5 if spread > 3 else 4e-6)  # of a rounding of the largest score


@pytest.mark.parametrize("n_pixels", PIXELS)
def test_normalise_pixels(n_pixels):
    mixing = random(N, 2 * HEADS * T, n_pixels)
    products, cross = random(N, HEADS * T, n_pixels, seed=1), random(HEADS, N, T, n_pixels, seed=2)
    scale, squares = random(N, n_pixels, seed=3).abs(), 1e4 * random(n_pixels, seed=4).abs()
    arrays = mixing, products, cross, scale, squares
    outcomes = run_both(decoder_passes.normalise_pixels, arrays, 32, 1e-5)
    assert_alike(outcomes, 1e-4)  # squares cancel
    assert torch.equal(outcomes[0][0][:, HEADS * T :], mixing[:, HEADS * T :])


@pytest.mark.parametrize("n_pixels", PIXELS)
@pytest.mark.parametrize("size", [8, 64])
@pytest.mark.parametrize("of_every_pixel", [True, False])
def test_add_norm_gelu(n_pixels, size, of_every_pixel):
    x, base = random(N, n_pixels, 4 * size), random(n_pixels, 4 * size, seed=1)
    bias = random(n_pixels if of_every_pixel else 1, 4 * size, seed=2)
    norm = [random(size, seed=seed) for seed in (4, 5)]
    arrays = x, base, random(N, n_pixels, seed=3), bias, *norm
    assert_alike(run_both(decoder_passes.add_norm_gelu, arrays, 1e-6), 2e-5)


@pytest.mark.parametrize("size", [8, 32])
@pytest.mark.parametrize(("first_pixel", "n_pixels"), [(0, 30), (7, 12), (29, 1)])
@pytest.mark.parametrize("of_every_part", [True, False])
def test_gelu_dot(size, first_pixel, n_pixels, of_every_part):
    x = random(N, 4 * n_pixels, 4 * size)
    bias = random(len(x[0]) if of_every_part else 1, 4 * size, seed=1)
    weights, logits = random(N, 3, size, seed=2), random(N, 3, 4 * 6, 4 * 5, seed=3)
    outcomes = run_both(decoder_passes.gelu_dot, (x, bias, weights, logits), first_pixel, 5)
    assert_alike([arrays[1:] for arrays in outcomes], 1e-4)


def test_logits_have_their_places():
    """Against a transposed convolution's own order of pixels."""
    h, w, size = 2, 3, 4
    features = random(1, h * w, 16 * size, spread=1.0)
    maps = features.view(1, h, w, 2, 2, 2, 2, size).permute(0, 7, 1, 3, 5, 2, 4, 6)
    maps = F.gelu(maps.reshape(1, size, 4 * h, 4 * w))
    weights = random(1, 1, size, seed=1)
    logits = torch.empty(1, 1, 4 * h, 4 * w)
    x = features.view(1, 4 * h * w, 4 * size)
    decoder_passes.gelu_dot(x, torch.zeros(1, 4 * size), weights, logits, 0, w)
    torch.testing.assert_close(logits, (weights @ maps.flatten(2)).view_as(logits))


def test_gelu_everywhere():
    """Each value in a row of four, and so in four logits; the first of them is looked at."""
    values = torch.cat([torch.linspace(-12, 12, 20_000), torch.tensor([0.0, -0.0, 1e30, -1e30])])
    n_pixels = len(values) // 4
    x = values.view(1, -1, 1).repeat(1, 1, 4)
    logits = torch.empty(1, 1, 4, 4 * n_pixels)
    decoder_passes.gelu_dot(x, torch.zeros(1, 4), torch.ones(1, 1, 1), logits, 0, n_pixels)
    # Rows (row of the part, its own row) and columns (pixel, part's column, its own column).
    parts = logits.view(2, 2, n_pixels, 2, 2)[:, 0, :, :, 0]
    found = parts.permute(1, 0, 2).flatten()
    expected = F.gelu(values.double())
    error = (found - expected).abs() / expected.abs().clamp(min=1)
    assert error.max() < 2e-6
