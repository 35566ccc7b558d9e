"""Colours as photographs have them: muted, related to each other, now and then loud."""

import colorsys
from dataclasses import dataclass

import numpy as np

from pipelines.train.scenes.dice import Dice

Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class Range:
    """A box of hue (degrees), saturation and value (0..1) to draw a colour from."""

    hue: tuple[float, float]
    saturation: tuple[float, float]
    value: tuple[float, float]


RANGES: dict[str, Range] = {
    "foliage": Range((60, 125), (0.2, 0.6), (0.15, 0.55)),
    "dry": Range((38, 65), (0.2, 0.5), (0.3, 0.75)),
    "brown": Range((15, 40), (0.2, 0.6), (0.12, 0.6)),
    "sand": Range((22, 42), (0.12, 0.4), (0.5, 0.9)),
    "skin": Range((12, 28), (0.25, 0.55), (0.35, 0.92)),
    "grey": Range((0, 360), (0.0, 0.1), (0.12, 0.85)),
    "blue": Range((195, 228), (0.12, 0.6), (0.3, 0.85)),
    "water": Range((150, 225), (0.1, 0.5), (0.2, 0.7)),
    "dark": Range((0, 360), (0.05, 0.45), (0.06, 0.24)),
    "loud": Range((0, 360), (0.6, 0.95), (0.35, 0.95)),
    "warm": Range((-8, 48), (0.65, 0.95), (0.45, 0.95)),
    "pale": Range((20, 240), (0.0, 0.1), (0.75, 0.97)),
    "brick": Range((5, 25), (0.3, 0.6), (0.3, 0.65)),
    "white": Range((30, 60), (0.0, 0.06), (0.85, 1.0)),
}

_ANY = ("foliage", "dry", "brown", "sand", "skin", "grey", "blue", "dark", "loud", "warm", "pale")
_ANY_WEIGHTS = (16, 9, 18, 11, 6, 18, 9, 9, 6, 5, 7)


def colour(dice: Dice, name: str = "any") -> Rgb:
    """An RGB colour (0..255) from a named range, or from the natural mixture of all."""
    if name == "any":
        name = dice.weighted(_ANY, _ANY_WEIGHTS)
    box = RANGES[name]
    hue = (dice.uniform(*box.hue) / 360) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(
        hue, dice.uniform(*box.saturation), dice.uniform(*box.value)
    )
    return 255 * red, 255 * green, 255 * blue


def near(dice: Dice, rgb: Rgb, spread: float = 0.15) -> Rgb:
    """A colour near `rgb` (0..255): brightness and each channel jittered by about `spread`."""
    gain, wide = 1 + dice.normal(0, 1.5 * spread), spread
    shifts = [(dice.uniform(-wide, wide), 30 * dice.uniform(-wide, wide)) for _ in rgb]
    red, green, blue = (
        min(max(c * (gain + share) + shift, 2.0), 252.0)
        for c, (share, shift) in zip(rgb, shifts, strict=True)
    )
    return red, green, blue


def mix(first: Rgb, second: Rgb, share: float) -> Rgb:
    """The colour `share` of the way from `first` to `second`."""
    red, green, blue = (a + (b - a) * share for a, b in zip(first, second, strict=True))
    return red, green, blue


_TONE = np.linspace(-1.4, 1.4, 256, dtype=np.float32)[:, None]
_RANK = np.linspace(0, 1, 256)
_GRADUAL = (0.0, 0.3, 0.5, 0.7, 1.0)
_TWO_TONE = (0.0, 0.48, 0.53, 0.8, 1.0)


def ramp(dice: Dice, base: Rgb, other: Rgb, contrast: float, wander: float) -> np.ndarray:
    """A table (256,1,3) uint8 from grey texture to colour.

    `contrast` is the log brightness at one end; `wander` (0..1) how far the colour strays to
    `other` at some greys, so that one texture shows more than one hue.
    """
    knots = [dice.uniform(0, wander) for _ in range(5)]
    at = _TWO_TONE if dice.chance(0.15) else _GRADUAL
    share = np.interp(_RANK, at, knots).astype(np.float32)[:, None]
    first, second = np.array(base, np.float32), np.array(other, np.float32)
    table = (first + (second - first) * share) * np.exp(contrast * _TONE)
    return np.clip(table, 0, 255).astype(np.uint8)[:, None, :]
