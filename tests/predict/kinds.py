"""Prompts of every kind, at random places of an image, as the originals' `predict` takes them."""

import numpy as np


def _points(rng, size_hw, labels):
    coords = rng.uniform(0, size_hw[::-1], (len(labels), 2))
    return {"point_coords": coords, "point_labels": np.array(labels)}


def _box(rng, size_hw):
    corners = np.sort(rng.uniform(0, size_hw[::-1], (2, 2)), axis=0)
    corners[1] += 2
    return {"box": corners.ravel()}


def _mask(rng, low_res_hw):
    """Logits of a blob."""
    y, x = np.indices(low_res_hw)
    at_y, at_x = rng.uniform(0, low_res_hw)
    distance = np.hypot(y - at_y, x - at_x)
    return {"mask_input": (0.2 * low_res_hw[0] - distance)[None].astype(np.float32)}


KINDS = {
    "point": lambda rng, hw, low: _points(rng, hw, [1]),
    "point off": lambda rng, hw, low: _points(rng, hw, [0]),
    "points": lambda rng, hw, low: _points(rng, hw, [1, 0, 1]),
    "points, padded": lambda rng, hw, low: _points(rng, hw, [1, 0, -1, -1]),
    "many points": lambda rng, hw, low: _points(rng, hw, [1, 0] * 10),
    "too many for the fast way": lambda rng, hw, low: _points(rng, hw, [1, 0] * 20),
    "box": lambda rng, hw, low: _box(rng, hw),
    "box, points": lambda rng, hw, low: _box(rng, hw) | _points(rng, hw, [1, 0]),
    "mask": lambda rng, hw, low: _mask(rng, low),
    "mask, point": lambda rng, hw, low: _mask(rng, low) | _points(rng, hw, [1]),
    "mask, box": lambda rng, hw, low: _mask(rng, low) | _box(rng, hw),
    "mask, box, points": lambda rng, hw, low: (
        _mask(rng, low) | _box(rng, hw) | _points(rng, hw, [1, 0])
    ),
}
