"""Light: one sun a scene, relief shading of a silhouette, and slow light over the frame."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from pipelines.train.scenes.bank import bank
from pipelines.train.scenes.dice import Dice
from pipelines.train.scenes.palette import Rgb, colour, mix

SMALL_PX = 30


@dataclass(frozen=True)
class Light:
    """The sun's direction (unit, x right, y down, z to the viewer) and what it leaves in shade.

    `ambient` is the brightness of a face turned away; `shadow` the strength and `softness_px` the
    blur of cast shadows in a 224 px frame; `haze` the colour of distance.
    """

    x: float
    y: float
    z: float
    ambient: float
    shadow: float
    softness_px: float
    haze: Rgb


def make_light(dice: Dice, haze: Rgb | None = None) -> Light:
    """A sun above the horizon, hard or overcast."""
    side, height = dice.uniform(-1, 1), dice.uniform(0.2, 1.0)
    toward = dice.uniform(0.25, 1.1)
    norm = math.sqrt(side**2 + height**2 + toward**2)
    hard = dice.uniform(0, 1)
    return Light(
        side / norm,
        -height / norm,
        toward / norm,
        ambient=0.85 - 0.5 * hard,
        shadow=0.15 + 0.5 * hard,
        softness_px=dice.log_uniform(1.5, 5) * (2.2 - 1.2 * hard),
        haze=haze or mix((200, 210, 220), colour(dice), 0.25),
    )


def relief(alpha: np.ndarray, light: Light, roundness: float, gloss: float) -> np.ndarray:
    """Brightness (h, w, 1 or 3 broadcastable) of a puffed-up silhouette `alpha` (h, w) uint8.

    The height field is the blurred silhouette, so any shape is lit as if inflated; a dim rim
    stands for occlusion. Computed on at most 30 pixels a side and enlarged.
    """
    height, width = alpha.shape
    shrink = max(1.0, max(height, width) / SMALL_PX)
    size = max(2, round(width / shrink)), max(2, round(height / shrink))
    small = cv2.resize(alpha, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    reach = max(size) / 7 + 0.6
    puff = cv2.GaussianBlur(small, (0, 0), reach, borderType=cv2.BORDER_REPLICATE)
    puff = np.sqrt(np.clip(puff * 1.25 - 0.2, 0.0, 1.0) + 0.01)
    steep = roundness * max(size) * 0.45
    slope_x = cv2.Sobel(puff, cv2.CV_32F, 1, 0, scale=0.125) * -steep
    slope_y = cv2.Sobel(puff, cv2.CV_32F, 0, 1, scale=0.125) * -steep
    norm = 1.0 / np.sqrt(slope_x**2 + slope_y**2 + 1)
    facing = np.maximum((slope_x * light.x + slope_y * light.y + light.z) * norm, 0)
    flat = light.ambient + (1 - light.ambient) * light.z
    shade = (light.ambient + (1 - light.ambient) * facing) / flat
    shade *= 1 - roundness * 0.35 * (1 - np.clip(puff * 1.1, 0, 1))
    if gloss:
        half = facing * 0.6 + norm * 0.4
        shade += gloss * np.maximum(half - 0.55, 0) ** 6 * 60
    return cv2.resize(shade, (width, height), interpolation=cv2.INTER_LINEAR)


def slow_light(dice: Dice, size_px: int, strength: float) -> np.ndarray:
    """A brightness field (size, size, 1) float32: a gradient, a vignette and sometimes dapples."""
    small = 48
    grid = np.linspace(-1, 1, small, dtype=np.float32)
    field = 1 + strength * (dice.uniform(-1, 1) * grid[:, None] + dice.uniform(-1, 1) * grid[None])
    field *= 1 - dice.uniform(0, 0.3) * (grid[:, None] ** 2 + grid[None] ** 2) * dice.uniform(0, 1)
    if dice.chance(0.22):
        field *= _dapples(dice, small)
    return cv2.resize(field, (size_px, size_px), interpolation=cv2.INTER_CUBIC)[..., None]


def _dapples(dice: Dice, small: int) -> np.ndarray:
    """Shade of trees and walls that fall across everything."""
    tile = dice.pick(bank()[dice.pick(("smooth", "noise"))])[2]
    left, top = dice.integer(0, tile.shape[1] - small), dice.integer(0, tile.shape[0] - small)
    patch = tile[top : top + small, left : left + small].astype(np.float32)
    edge = np.clip((patch - dice.uniform(90, 165)) / dice.uniform(8, 60), 0, 1)
    dark = dice.uniform(0.4, 0.85)
    return dark + (1 - dark) * edge
