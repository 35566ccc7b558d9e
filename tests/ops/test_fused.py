"""The one pass over low-res logits against what it replaces, step by step."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from amg.ops import fused, rle
from amg.ops.boxes import mask_boxes
from amg.ops.resample import TAPS, Resampling, bilinear_taps
from amg.ops.stability import stability_score

THRESHOLD, OFFSET = 0.0, 1.0
# Low-res side, side of the model's input, what of it is kept, the crop's size.
FRAMES = [
    (112, 448, (299, 448), (534, 800)),
    (256, 1024, (683, 1024), (1201, 1801)),
    (112, 448, (448, 1), (5000, 1)),
    (112, 448, (1, 448), (1, 5000)),
    (112, 448, (448, 448), (1, 1)),
    (28, 112, (80, 112), (61, 83)),
    (28, 112, (112, 90), (13, 7)),
    (28, 112, (112, 112), (28, 28)),
]


def make_logits(n_low, seed=0):
    """Blobs with rough outlines, noise, all on, all off, ramps, and values at the thresholds."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.randn(8, 1, 7, 7, generator=rng) * 6
    blobs = F.interpolate(coarse, (n_low, n_low), mode="bicubic")[:, 0]
    blobs += torch.randn(8, n_low, n_low, generator=rng) * 0.3
    noise = torch.randn(2, n_low, n_low, generator=rng) * 3
    flat = torch.tensor([-5.0, 5.0, 0.0, 1.0, -1.0, 0.5, -0.5]).view(-1, 1, 1)
    ramp = torch.linspace(-3, 3, n_low).expand(n_low, n_low)
    steps = torch.randint(-2, 3, (2, n_low, n_low), generator=rng).float()  # on the thresholds
    return torch.cat([blobs, noise, flat.expand(-1, n_low, n_low), ramp[None], ramp.T[None], steps])


def upsample(logits, n_middle, kept, size_hw):
    middle = F.interpolate(logits[:, None], (n_middle, n_middle), mode="bilinear")
    return F.interpolate(middle[:, :, : kept[0], : kept[1]], size_hw, mode="bilinear")[:, 0]


def make_resampling(n_low, n_middle, kept, size_hw):
    sides = zip(kept, size_hw, strict=True)
    return Resampling(*(bilinear_taps(n_low, n_middle, *side) for side in sides))


@pytest.mark.parametrize("frame", FRAMES)
def test_taps_are_the_two_resizes(frame):
    resampling = make_resampling(*frame)
    logits = make_logits(frame[0])
    found = logits
    for axis in (resampling.columns, resampling.rows):
        index = torch.from_numpy(axis.starts[:, None] + np.arange(TAPS))
        found = (found[:, :, index] * torch.from_numpy(axis.weights)).sum(-1).transpose(1, 2)
    torch.testing.assert_close(found, upsample(logits, *frame[1:]), rtol=0, atol=2e-5)


def test_any_size_takes_three_taps():
    rng = np.random.default_rng(0)
    for kept, size in rng.integers(1, [[449, 3000]] * 300):
        axis = bilinear_taps(112, 448, int(kept), int(size))
        np.testing.assert_allclose(axis.weights.sum(1), 1, atol=1e-6)
        assert axis.edges[-1] == size == axis.size


def test_a_first_step_that_shrinks_is_refused():
    with pytest.raises(ValueError, match="must be 3 or more, and grow"):
        bilinear_taps(256, 128, 128, 300)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("n_threads", [1, 2])
def test_areas_boxes_and_runs_are_those_of_the_full_masks(frame, n_threads, set_threads):
    set_threads(n_threads)
    # Rounding decides about values exactly at a threshold: those of `steps` are tested below.
    logits, size_hw = make_logits(frame[0])[:-2], frame[3]
    logits = torch.cat([logits[:12], logits[13:]]) + 1e-3  # nor flat ones at 0, 1 and -1
    full = upsample(logits, *frame[1:])
    resampling = make_resampling(*frame)

    stability, boxes = fused.measure_masks(logits, resampling, THRESHOLD, OFFSET)
    encoded = fused.encode_masks(logits, resampling, THRESHOLD, (0, 0), size_hw)

    bits = full > THRESHOLD
    drawn = np.stack([rle.decode(mask) for mask in encoded])
    n_flipped = (drawn != bits.numpy()).sum((1, 2))
    assert n_flipped.max() <= 1
    same = torch.from_numpy(n_flipped == 0)
    assert same.float().mean() > 0.9
    assert torch.equal(boxes[same], mask_boxes(bits)[same])
    expected = stability_score(full, THRESHOLD, OFFSET)
    assert torch.equal(stability.isnan(), expected.isnan())
    areas = (full > THRESHOLD - OFFSET).sum((1, 2))
    differences = ((stability - expected).abs() * areas).nan_to_num()
    assert differences.max() <= 2.01  # pixels
    assert [rle.area(mask) for mask in encoded] == drawn.sum((1, 2)).tolist()


def test_boxes_and_runs_agree_on_values_at_the_thresholds():
    for frame in FRAMES:
        logits, resampling = make_logits(frame[0]), make_resampling(*frame)
        _, boxes = fused.measure_masks(logits, resampling, THRESHOLD, OFFSET)
        encoded = fused.encode_masks(logits, resampling, THRESHOLD, (0, 0), frame[3])
        bits = torch.from_numpy(np.stack([rle.decode(mask) for mask in encoded]))
        assert torch.equal(boxes, mask_boxes(bits))
        assert encoded == rle.encode_masks(bits.numpy())  # canonical, too


@pytest.mark.parametrize("origin_xy", [(0, 0), (3, 0), (0, 5), (3, 5)])
@pytest.mark.parametrize("margin_xy", [(0, 0), (4, 0), (0, 2), (4, 2)])
def test_a_crop_lies_in_its_image(origin_xy, margin_xy):
    frame = FRAMES[5]
    logits, resampling, (h, w) = make_logits(28), make_resampling(*frame), frame[3]
    (x0, y0), (right, bottom) = origin_xy, margin_xy
    image_hw = y0 + h + bottom, x0 + w + right
    encoded = fused.encode_masks(logits, resampling, THRESHOLD, origin_xy, image_hw)
    alone = fused.encode_masks(logits, resampling, THRESHOLD, (0, 0), (h, w))
    bits = np.stack([rle.decode(mask) for mask in alone])
    assert encoded == rle.encode_masks(np.pad(bits, ((0, 0), (y0, bottom), (x0, right))))


def test_no_masks_are_none():
    logits, resampling = torch.zeros(0, 28, 28), make_resampling(*FRAMES[5])
    stability, boxes = fused.measure_masks(logits, resampling, THRESHOLD, OFFSET)
    assert (stability.shape, boxes.shape) == ((0,), (0, 4))
    assert fused.encode_masks(logits, resampling, THRESHOLD, (0, 0), (61, 83)) == []


def test_a_machine_without_a_place_to_keep_compiled_code():
    code = "import numba.core.caching as c; c.CacheImpl._locator_classes = []\nimport amg.ops.fused"
    subprocess.run([sys.executable, "-c", code], check=True)
