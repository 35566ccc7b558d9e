"""Masks of known pixels, for tests of what is done with them."""

import numpy as np

from amg.ops import rle
from amg.records import Mask


def make_mask(bits, predicted_iou=0.9, crop_box_xywh=None, crop_layer=0):
    """A mask of bits (H, W), with the box and area that go with them."""
    ys, xs = np.nonzero(bits) if bits.any() else (np.zeros(1, int), np.zeros(1, int))
    return Mask(
        rle=rle.encode_masks(bits[None])[0],
        area=int(bits.sum()),
        bbox_xywh=(int(xs.min()), int(ys.min()), int(np.ptp(xs)), int(np.ptp(ys))),
        predicted_iou=predicted_iou,
        stability_score=0.96,
        point_xy=(1.0, 2.0),
        crop_box_xywh=crop_box_xywh or (0, 0, bits.shape[1], bits.shape[0]),
        crop_layer=crop_layer,
        level=1,
    )


def rectangle(x0, y0, x1, y1, size_hw=(40, 60)):
    """Bits (H, W) of a rectangle, its last column and row not in it."""
    bits = np.zeros(size_hw, bool)
    bits[y0:y1, x0:x1] = True
    return bits


def random_masks(seed, n, size_hw=(12, 14)):
    """Rectangles with noise, of a few scores: some empty, some equal, many of them nested."""
    rng = np.random.default_rng(seed)
    masks = []
    for _ in range(n):
        x0, y0 = rng.integers(0, 8, 2)
        width, height = rng.integers(1, 12, 2)
        bits = rectangle(x0, y0, x0 + width, y0 + height, size_hw)
        masks.append(
            make_mask(
                bits & (rng.random(size_hw) < rng.choice([0, 0.8, 1])),
                rng.choice([0.25, 0.5, 0.75]),
            )
        )
    return masks
