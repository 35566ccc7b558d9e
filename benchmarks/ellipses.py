"""A generator of many plain masks, for measuring what is done with them. Workers import it."""

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from amg.config import Config
from amg.ops import rle
from amg.records import ImageResult, Mask

N_SCENES = 50
SIZE_HW = (768, 1024)


def ellipses(n: int, seed: int) -> tuple[Mask, ...]:
    """Ellipses of sizes like those of things in photos, on an image of `SIZE_HW`."""
    rng = np.random.default_rng(seed)
    height, width = SIZE_HW
    masks = []
    for score in np.sort(rng.uniform(0.5, 1, n))[::-1].astype(np.float32).tolist():
        centre = int(rng.integers(0, width)), int(rng.integers(0, height))
        axes = tuple(
            int(2 + 250 * rng.random() ** 3 * stretch) for stretch in rng.uniform(0.5, 1, 2)
        )
        canvas = np.zeros(SIZE_HW, np.uint8)
        cv2.ellipse(canvas, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
        (encoded,) = rle.encode_masks(canvas[None] > 0)
        x, y, w, h = rle.pixel_box_xywh(encoded)
        masks.append(
            Mask(
                rle=encoded,
                area=int(canvas.sum()),
                bbox_xywh=(x, y, w - 1, h - 1),
                predicted_iou=score,
                stability_score=0.95,
                point_xy=centre,
                crop_box_xywh=(0, 0, width, height),
                crop_layer=0,
                level=0,
            )
        )
    return tuple(masks)


class EllipseGenerator:
    """Gives images of `SIZE_HW` one of a few scenes in turn."""

    def __init__(self, n_masks: int) -> None:
        self._scenes = [ellipses(n_masks, seed) for seed in range(N_SCENES)]
        self._n_given = 0

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """Nothing is to be prepared."""
        return image

    def generate_batch(self, images: Sequence[Any]) -> list[ImageResult]:
        """As `MaskGenerator`."""
        self._n_given += len(images)
        first = self._n_given - len(images)
        return [
            ImageResult(SIZE_HW, self._scenes[i % N_SCENES]) for i in range(first, self._n_given)
        ]

    def with_smaller_batches(self) -> None:
        """It needs nothing."""


def make_hundred_ellipses(config: Config, heartbeat: Callable[[], None]) -> EllipseGenerator:
    """What workers build: a hundred masks an image."""
    return EllipseGenerator(100)
