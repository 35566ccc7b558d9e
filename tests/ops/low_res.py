"""Low-res logits, the frames that they are seen in, and what their full-size masks must be."""

import numpy as np
import torch
import torch.nn.functional as F

from amg.ops import rle
from amg.ops.full_size_plain import mask_boxes, stability_score
from amg.ops.resample import TAPS, Resampling, bilinear_taps

THRESHOLD, OFFSET = 0.0, 1.0
# Low-res side, side of the model's input, what of it is kept, the crop's size.
SAMS_FRAME = 256, 1024, (683, 1024), (1201, 1801)
FRAMES = [
    (112, 448, (299, 448), (534, 800)),
    (64, 256, (171, 256), (301, 451)),
    (112, 448, (448, 1), (5000, 1)),
    (112, 448, (1, 448), (1, 5000)),
    (112, 448, (448, 448), (1, 1)),
    (28, 112, (80, 112), (61, 83)),
    (28, 112, (112, 90), (13, 7)),
    (28, 112, (112, 112), (28, 28)),
]


def make_logits(n_low, seed=0):
    """Blobs with rough outlines, noise, all on, all off, ramps, and values at the thresholds."""
    steps = torch.randint(-2, 3, (2, n_low, n_low), generator=torch.Generator().manual_seed(seed))
    flat = torch.tensor([0.0, 1.0, -1.0]).view(-1, 1, 1).expand(-1, n_low, n_low)
    return torch.cat([make_clear_logits(n_low, seed), flat, steps.float()])


def make_clear_logits(n_low, seed=0):
    """The same without values at the thresholds, on whose side only rounding decides."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.randn(8, 1, 7, 7, generator=rng) * 6
    blobs = F.interpolate(coarse, (n_low, n_low), mode="bicubic")[:, 0]
    blobs += torch.randn(8, n_low, n_low, generator=rng) * 0.3
    noise = torch.randn(2, n_low, n_low, generator=rng) * 3
    flat = torch.tensor([-5.0, 5.0, 0.5, -0.5]).view(-1, 1, 1).expand(-1, n_low, n_low)
    ramp = torch.linspace(-3, 3, n_low).expand(n_low, n_low) + 1e-3
    ramps = torch.stack([ramp, ramp.T, ramp / 6 + OFFSET, ramp / 6 - OFFSET])
    return torch.cat([blobs, noise, flat.expand(-1, n_low, n_low), ramps])


def upsample(logits, n_middle, kept, size_hw):
    middle = F.interpolate(logits[:, None], (n_middle, n_middle), mode="bilinear")
    return F.interpolate(middle[:, :, : kept[0], : kept[1]], size_hw, mode="bilinear")[:, 0]


def make_resampling(n_low, n_middle, kept, size_hw):
    sides = zip(kept, size_hw, strict=True)
    return Resampling(*(bilinear_taps(n_low, n_middle, *side) for side in sides))


def resample(logits, resampling):
    """The sums over all taps, as written in `Resampling`."""
    full = logits
    for axis in (resampling.columns, resampling.rows):
        index = torch.from_numpy(axis.starts[:, None] + np.arange(TAPS))
        full = (full[:, :, index] * torch.from_numpy(axis.weights)).sum(-1).transpose(1, 2)
    return full


def decode_all(encoded):
    """Masks (M, H, W) bool."""
    return np.stack([rle.decode(mask) for mask in encoded])


def assert_of_full_masks(frame, logits, stability, boxes, encoded):
    """What is found of clear logits is right for their full masks, but for a flipped pixel each."""
    full = upsample(logits, *frame[1:])
    bits, decoded = full > THRESHOLD, decode_all(encoded)
    n_flipped = (decoded != bits.numpy()).sum((1, 2))
    assert n_flipped.max() <= 1
    same = torch.from_numpy(n_flipped == 0)
    assert same.float().mean() > 0.9
    assert torch.equal(boxes[same], mask_boxes(bits)[same])
    expected = stability_score(full, THRESHOLD, OFFSET)
    assert torch.equal(stability.isnan(), expected.isnan())
    areas = (full > THRESHOLD - OFFSET).sum((1, 2))
    differences = ((stability - expected).abs() * areas).nan_to_num()
    assert differences.max() <= 2.01  # pixels
    assert [rle.area(mask) for mask in encoded] == decoded.sum((1, 2)).tolist()


def assert_boxes_of_runs(boxes, encoded):
    """Boxes are those of what is encoded, to the pixel; and runs are canonical."""
    bits = decode_all(encoded)
    assert torch.equal(boxes, mask_boxes(torch.from_numpy(bits)))
    assert encoded == rle.encode_masks(bits)
