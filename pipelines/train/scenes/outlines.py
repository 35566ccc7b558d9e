"""Outlines: closed curves (N,2) float32 in a unit frame, x right, y down, about [-1, 1]."""

import math
from functools import cache

import numpy as np

from pipelines.train.scenes.dice import Dice

Outline = np.ndarray
_LEFT = np.array([-1.0, 1.0])
_ALONG = np.linspace(0, 1, 7)
_ARC = np.sin(_ALONG * math.pi)
_SWELL = 1 + 0.18 * _ARC


@cache
def _turn(count: int) -> tuple[np.ndarray, np.ndarray]:
    angle = np.linspace(0, 2 * math.pi, count, endpoint=False)
    return np.cos(angle), np.sin(angle)


@cache
def _waves(count: int, harmonics: int) -> np.ndarray:
    order = np.arange(1, harmonics + 1)[:, None]
    angle = np.linspace(0, 2 * math.pi, count, endpoint=False)[None]
    return np.concatenate([np.cos(order * angle), np.sin(order * angle)])


def points(*pairs: tuple[float, float]) -> Outline:
    """An outline from its corners."""
    return np.array(pairs, np.float32)


def ellipse(
    x: float, y: float, rx: float, ry: float, angle: float = 0.0, count: int = 28
) -> Outline:
    """An ellipse about (x, y), turned by `angle` radians."""
    cos, sin = _turn(count)
    u, v = rx * cos, ry * sin
    c, s = math.cos(angle), math.sin(angle)
    return np.stack([x + c * u - s * v, y + s * u + c * v], 1).astype(np.float32)


def blob(
    dice: Dice, roughness: float, harmonics: int = 8, decay: float = 1.3, count: int = 56
) -> Outline:
    """A closed curve whose radius is a random Fourier series; rough ones are concave."""
    order = np.arange(1, harmonics + 1)
    gains = dice.arrays.standard_normal((2, harmonics)) / order**decay
    radius = 1 + roughness * (gains.ravel() @ _waves(count, harmonics))
    radius = np.maximum(radius, 0.12)
    cos, sin = _turn(count)
    curve = np.stack([radius * cos, radius * sin], 1)
    curve -= (curve.max(0) + curve.min(0)) / 2
    return (curve / np.abs(curve).max()).astype(np.float32)


def rounded(
    x: float, y: float, rx: float, ry: float, power: float = 5.0, count: int = 36
) -> Outline:
    """A superellipse: power 2 is an ellipse, 4 to 10 a rounded rectangle."""
    cos, sin = _turn(count)
    u = np.sign(cos) * np.abs(cos) ** (2 / power)
    v = np.sign(sin) * np.abs(sin) ** (2 / power)
    return np.stack([x + rx * u, y + ry * v], 1).astype(np.float32)


def rectangle(left: float, top: float, right: float, bottom: float) -> Outline:
    """An axis-aligned rectangle."""
    return points((left, top), (right, top), (right, bottom), (left, bottom))


def star(dice: Dice, tips: int, depth: float) -> Outline:
    """A star; `depth` is the inner radius over the outer one."""
    cos, sin = _turn(2 * tips)
    radius = np.where(np.arange(2 * tips) % 2, depth, 1.0) * dice.arrays.uniform(0.85, 1, 2 * tips)
    return np.stack([radius * cos, radius * sin], 1).astype(np.float32)


def polygon(dice: Dice, sides: int) -> Outline:
    """A roughly convex polygon with uneven corners."""
    angle = (np.arange(sides) + dice.arrays.uniform(-0.35, 0.35, sides)) * (2 * math.pi / sides)
    radius = dice.arrays.uniform(0.7, 1.0, sides)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).astype(np.float32)


def limb(path: Outline, widths: np.ndarray) -> Outline:
    """A tapered tube with round ends along `path` (N,2), `widths` (N,) half thickness."""
    heading = np.empty_like(path)
    heading[1:-1] = path[2:] - path[:-2]
    heading[0], heading[-1] = path[1] - path[0], path[-1] - path[-2]
    heading /= np.sqrt((heading * heading).sum(1, keepdims=True)) + 1e-9
    normal = heading[:, ::-1] * (widths[:, None] * _LEFT)
    left, right = path + normal, path - normal
    tip = path[-1:] + heading[-1:] * widths[-1]
    root = path[:1] - heading[:1] * widths[0]
    return np.concatenate([root, left, tip, right[::-1]]).astype(np.float32)


def bone(
    x0: float, y0: float, x1: float, y1: float, w0: float, w1: float, bow: float = 0.0
) -> Outline:
    """A tube from one point to another, tapering from `w0` to `w1`, bowed sideways by `bow`."""
    along, arc = _ALONG, _ARC * bow
    path = np.stack(
        [x0 + (x1 - x0) * along - (y1 - y0) * arc, y0 + (y1 - y0) * along + (x1 - x0) * arc], 1
    )
    return limb(path, (w0 + (w1 - w0) * along) * _SWELL)


def wander(
    dice: Dice, x: float, y: float, angle: float, length: float, curl: float, count: int = 12
) -> Outline:
    """A path (N,2) that starts at (x, y) and turns at random by up to `curl` radians in all."""
    heading = angle + np.cumsum(dice.arrays.uniform(-1, 1, count)) * curl / count**0.5
    step = length / count
    path = np.stack([np.cos(heading), np.sin(heading)], 1).cumsum(0) * step
    return path + np.array([x, y])


def profile(heights: list[float], widths: list[float], count: int = 20) -> Outline:
    """A shape symmetric about x = 0, from half widths at given heights (a turned vase)."""
    y = np.linspace(heights[0], heights[-1], count)
    half = np.interp(y, heights, widths)
    right = np.stack([half, y], 1)
    left = np.stack([-half, y], 1)[::-1]
    return np.concatenate([right, left]).astype(np.float32)


def fractal_line(dice: Dice, count: int, roughness: float, octaves: int = 6) -> np.ndarray:
    """Heights (count,) of a rough line, about [-1, 1]; `roughness` is each octave's gain."""
    position = np.linspace(0, 1, count)
    line = np.zeros(count)
    gain, knots = 1.0, dice.integer(2, 4)
    for _ in range(octaves):
        values = dice.arrays.uniform(-1, 1, knots + 1)
        line += gain * np.interp(position, np.linspace(0, 1, knots + 1), values)
        gain *= roughness
        knots *= 2
    return line


def ragged(outline: Outline, dice: Dice, amount: float, count: int = 90) -> Outline:
    """The outline resampled to `count` points and roughened along its normals by `amount`."""
    closed = np.concatenate([outline, outline[:1]])
    steps = np.linalg.norm(np.diff(closed, axis=0), axis=1)
    walked = np.concatenate([[0], np.cumsum(steps)])
    at = np.linspace(0, walked[-1], count, endpoint=False)
    x, y = (np.interp(at, walked, closed[:, axis]) for axis in (0, 1))
    noise = fractal_line(dice, count, 0.8) + 0.6 * dice.arrays.standard_normal(count)
    centre_x, centre_y = x.mean(), y.mean()
    grow = 1 + amount * noise
    return np.stack([centre_x + (x - centre_x) * grow, centre_y + (y - centre_y) * grow], 1).astype(
        np.float32
    )


def bent(outline: Outline, bend: float, phase: float) -> Outline:
    """The outline pushed sideways by a sine of its height: gives a stance to stiff figures."""
    moved = outline.copy()
    moved[:, 0] += bend * np.sin(1.8 * outline[:, 1] + phase)
    return moved
