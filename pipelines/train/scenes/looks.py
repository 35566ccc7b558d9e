"""A look is what fills a region: texture tile, colours, scale and, for ground, perspective."""

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from pipelines.train.scenes.bank import TILE_PX, Mips, bank, sample
from pipelines.train.scenes.dice import Dice
from pipelines.train.scenes.palette import Rgb, colour, mix, near, ramp

REFERENCE_PX = 224
TINY_PX = 80  # a box with fewer pixels is filled with one colour


@dataclass(frozen=True)
class Look:
    """A coloured texture fixed in the frame.

    `zoom` is tile pixels a frame pixel; `table` (256,1,3) uint8 maps grey to RGB; `mottle` is the
    strength of a second, coarse brightness field; `horizon_px` set makes it a receding ground.
    """

    tile: Mips
    table: np.ndarray
    zoom: float
    angle: float
    stretch: float
    shift: tuple[float, float]
    mottle: float
    coarse: Mips
    horizon_px: float | None = None

    def render(self, left: int, top: int, width: int, height: int) -> np.ndarray:
        """The look over a frame box in pixels, (height, width, 3) float32 0..255."""
        if width * height < TINY_PX:
            return np.broadcast_to(self.table[128].astype(np.float32), (height, width, 3)).copy()
        grey = self._grey(left, top, width, height)
        filled = cv2.applyColorMap(grey, self.table).astype(np.float32)
        if self.mottle > 0.04 and width * height > 900:
            filled *= self._mottle(left, top, width, height)[..., None]
        return filled

    def _grey(self, left: int, top: int, width: int, height: int) -> np.ndarray:
        level = 0 if self.zoom < 1.5 else 1 if self.zoom < 3 else 2
        if self.horizon_px is not None:
            return self._receding(left, top, width, height)
        scale = self.zoom / (1 << level)
        cos, sin = scale * math.cos(self.angle), scale * math.sin(self.angle)
        matrix = np.array(
            [
                [cos, -sin, cos * left - sin * top + self.shift[0]],
                [
                    sin * self.stretch,
                    cos * self.stretch,
                    (sin * left + cos * top) * self.stretch + self.shift[1],
                ],
            ]
        )
        return sample(self.tile, level, matrix, width, height)

    def _receding(self, left: int, top: int, width: int, height: int) -> np.ndarray:
        assert self.horizon_px is not None
        tile = self.tile[1][:256, :256]
        below = top - self.horizon_px + 3.0
        reach = 260.0 * self.zoom
        matrix = np.array(
            [
                [reach * 0.02, self.shift[0] / 64, (left - self.shift[1]) * reach * 0.02],
                [0.0, self.shift[1] / 64, -reach * 1.2],
                [0.0, 1.0 / 60, max(below, 1.0) / 60],
            ]
        )
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        grey = cv2.warpPerspective(
            tile, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_WRAP
        )
        rows = np.arange(height, dtype=np.float32) + max(below, 1.0)
        fade = np.minimum(1.0, 0.35 + rows / (0.3 * REFERENCE_PX))[:, None]
        return (128 + (grey.astype(np.float32) - 128) * fade).astype(np.uint8)

    def _mottle(self, left: int, top: int, width: int, height: int) -> np.ndarray:
        small_w, small_h = width // 4 + 2, height // 4 + 2
        scale = 2.2 * self.zoom**0.5
        matrix = np.array(
            [
                [scale, 0, self.shift[1] + left * scale / 4],
                [0, scale, self.shift[0] + top * scale / 4],
            ]
        )
        field = sample(self.coarse, 1, matrix, small_w, small_h)
        gain = 1 + self.mottle * (field.astype(np.float32) - 128) / 64
        return cv2.resize(gain, (width, height), interpolation=cv2.INTER_LINEAR)


# Texture families by what they dress: (families, weights, log-contrast low and high).
_DRESS: dict[str, tuple[tuple[str, ...], tuple[float, ...], float, float]] = {
    "plain": (("smooth", "noise", "folds", "emboss"), (3, 3, 1, 1), 0.04, 0.25),
    "skin": (("smooth", "noise"), (2, 1), 0.04, 0.2),
    "cloth": (("folds", "stripes", "weave", "noise", "spots"), (5, 1.5, 1, 1, 1), 0.15, 0.7),
    "fur": (("fur", "streaks", "noise", "spots", "stripes"), (5, 2, 2, 1, 0.7), 0.25, 0.8),
    "foliage": (("leaves", "noise", "pebbles", "ridges"), (6, 2, 1, 1), 0.45, 1.2),
    "bark": (("streaks", "wood", "ridges", "noise"), (3, 2, 1, 1), 0.3, 0.8),
    "rock": (("noise", "ridges", "cells", "pebbles", "emboss"), (4, 2, 1, 1, 3), 0.3, 0.85),
    "ground": (("noise", "pebbles", "leaves", "streaks", "ridges"), (5, 2, 1.5, 1, 1), 0.2, 0.8),
    "wall": (("noise", "bricks", "planks", "smooth", "wood"), (3, 4, 1, 2, 0.5), 0.08, 0.5),
    "metal": (("smooth", "streaks", "noise"), (4, 1, 1), 0.1, 0.5),
    "water": (("ripples", "streaks"), (3, 1), 0.15, 0.7),
    "hide": (("spots", "stripes", "cells", "pebbles", "fur"), (2, 2, 1, 1, 1), 0.3, 1.0),
    "any": (
        (
            "noise",
            "smooth",
            "fur",
            "folds",
            "leaves",
            "pebbles",
            "bricks",
            "stripes",
            "weave",
            "spots",
            "wood",
            "cells",
            "ridges",
            "streaks",
            "planks",
        ),
        (5, 5, 3, 4, 3, 2, 1, 1, 1, 1, 2, 1, 2, 2, 1),
        0.06,
        0.9,
    ),
}


def make_look(
    dice: Dice, dress: str, base: Rgb, size_px: int, zoom: float | None = None, drama: float = 1.0
) -> Look:
    """A look of a given dress around the colour `base`, for frames of `size_px`.

    `zoom` is tile pixels a pixel in a 224 px frame, drawn if not given; `drama` scales contrast.
    """
    families, weights, low, high = _DRESS[dress]
    tiles = bank()
    tile = dice.pick(tiles[dice.weighted(families, weights)])
    other = colour(dice) if dice.chance(0.15) else near(dice, base, 0.25)
    wander = dice.uniform(0, 0.9)
    zoom = dice.log_uniform(0.5, 3.2) if zoom is None else zoom
    contrast = drama * dice.log_uniform(low, high)
    return Look(
        tile=tile,
        table=ramp(dice, base, other, contrast, wander),
        zoom=min(max(zoom, 0.15), 6.0) * REFERENCE_PX / size_px,
        angle=dice.uniform(0, 2 * math.pi) if dress not in ("wall", "water") else 0.0,
        stretch=dice.log_uniform(0.7, 1.4),
        shift=(dice.uniform(0, TILE_PX), dice.uniform(0, TILE_PX)),
        mottle=0.45 * dice.uniform(0, 1) ** 2,
        coarse=dice.pick(tiles[dice.weighted(("smooth", "emboss", "folds"), (3, 4, 2))]),
    )


def receding(look: Look, horizon_px: float) -> Look:
    """The look laid on a ground plane that ends at `horizon_px`."""
    return replace(look, horizon_px=horizon_px)


def hazed(look: Look, haze: Rgb, share: float) -> Look:
    """The look seen through `share` of haze."""
    if share <= 0.01:
        return look
    tint = np.array(mix((0, 0, 0), haze, share), np.float32)
    table = look.table.astype(np.float32) * (1 - share) + tint
    return replace(look, table=np.clip(table, 0, 255).astype(np.uint8))
