"""Pictures of masks: each in a colour of its own, over the image."""

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np

from amg.ops import rle
from amg.records import Mask

_GOLDEN_RATIO = 0.618033988749895
_FILL_OPACITY = 0.5
_BACKGROUND_BRIGHTNESS = 0.6
_GAP_PX = 8


def draw_overlay(image: np.ndarray, masks: Sequence[Mask]) -> np.ndarray:
    """Fill and outline masks over an image, (H, W, 3) uint8 RGB to the same.

    Each pixel takes the colour of the smallest mask that covers it, so that parts stay visible
    on their objects; what no mask covers is grey.
    """
    by_area = sorted(masks, key=lambda mask: mask.area, reverse=True)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    canvas = np.round(grey * np.float32(_BACKGROUND_BRIGHTNESS)).astype(np.uint8)
    for i, mask in enumerate(by_area):
        bits = rle.decode(mask.rle)
        fill = np.array(mask_colour(i), dtype=np.float32) * _FILL_OPACITY
        canvas[bits] = image[bits] * (1 - _FILL_OPACITY) + fill
    # All outlines come after all fills; masks are decoded twice rather than all held at once.
    thickness = max(1, round(max(image.shape[:2]) / 700))
    for i, mask in enumerate(by_area):
        bits = rle.decode(mask.rle).astype(np.uint8)
        outline, _ = cv2.findContours(bits, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, outline, -1, mask_colour(i), thickness, cv2.LINE_AA)
    return canvas


def draw_side_by_side(image: np.ndarray, masks: Sequence[Mask]) -> np.ndarray:
    """Place the image and its overlay beside each other, (H, 2W + gap, 3) uint8 RGB."""
    gap = np.full((image.shape[0], _GAP_PX, 3), 255, dtype=np.uint8)
    return np.hstack([image, gap, draw_overlay(image, masks)])


def mask_colour(index: int) -> tuple[int, int, int]:
    """Give the colour of the index-th mask: hues that stay apart however many there are."""
    hue = index * _GOLDEN_RATIO % 1.0
    value = 1.0 if index % 2 else 0.8
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, value)
    return round(red * 255), round(green * 255), round(blue * 255)
