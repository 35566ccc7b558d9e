"""The bank of grey texture tiles, made once a process and coloured at each use.

Every tile is periodic, uint8, mean near 128, and comes with two coarser mip levels so that a
strong shrink does not alias.
"""

import math
from collections.abc import Callable
from functools import cache

import cv2
import numpy as np

TILE_PX = 512
MIPS = 3
_EXTRA = (0.5, 1.0, 1.0)  # how much of itself each level is padded with

Mips = tuple[np.ndarray, ...]
Maker = Callable[[np.random.Generator], np.ndarray]


@cache
def bank() -> dict[str, list[Mips]]:
    """Tiles by family: each tile is its mip levels, period 512, 256 and 128, padded, uint8."""
    rng = np.random.default_rng(20240607)
    return {
        family: [_mips(_normalise(maker(rng))) for _ in range(count)]
        for family, (maker, count) in _FAMILIES.items()
    }


def sample(tile: Mips, level: int, matrix: np.ndarray, width: int, height: int) -> np.ndarray:
    """Grey values (height, width) uint8 of a tile's level under an affine map.

    `matrix` (2,3) float64 takes frame pixels to tile pixels. A box that fits the padded tile is
    read without wrapping, which is six times faster.
    """
    period = TILE_PX >> level
    across, down = matrix[:, 0] * width, matrix[:, 1] * height
    low = matrix[:, 2] + np.minimum(across, 0) + np.minimum(down, 0)
    span = np.abs(across) + np.abs(down)
    moved = matrix.copy()
    moved[:, 2] -= np.floor(low / period) * period
    grid = tile[level]
    if (low % period + span).max() >= len(grid) - 1:
        grid = grid[:period, :period]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(grid, moved, (width, height), flags=flags, borderMode=cv2.BORDER_WRAP)


def _mips(tile: np.ndarray) -> Mips:
    levels = [tile]
    for _ in range(MIPS - 1):
        size = levels[-1].shape[0] // 2
        levels.append(cv2.resize(levels[-1], (size, size), interpolation=cv2.INTER_AREA))
    wide = [
        np.pad(grid, (0, int(extra * len(grid))), mode="wrap")
        for grid, extra in zip(levels, _EXTRA, strict=True)
    ]
    return tuple(wide)


def _normalise(field: np.ndarray) -> np.ndarray:
    centred = (field - field.mean()) / (field.std() + 1e-6)
    return np.clip(128 + 46 * centred, 0, 255).astype(np.uint8)


def _frequencies() -> tuple[np.ndarray, np.ndarray]:
    fy = np.fft.fftfreq(TILE_PX)[:, None] * TILE_PX
    fx = np.fft.rfftfreq(TILE_PX)[None, :] * TILE_PX
    return fy, fx


def _filtered(rng: np.random.Generator, gain: np.ndarray) -> np.ndarray:
    spectrum = np.fft.rfft2(rng.standard_normal((TILE_PX, TILE_PX))) * gain
    field = np.fft.irfft2(spectrum, s=(TILE_PX, TILE_PX))
    return (field / field.std()).astype(np.float32)


def fractal(rng: np.random.Generator, slope: float, low_cut: float = 2.0) -> np.ndarray:
    """Noise (512,512) float32 of unit variance with amplitude 1/f^slope above `low_cut` cycles."""
    fy, fx = _frequencies()
    radius = np.hypot(fy, fx)
    return _filtered(rng, 1.0 / np.maximum(radius, low_cut) ** slope)


def _noise(rng: np.random.Generator) -> np.ndarray:
    return fractal(rng, rng.uniform(0.6, 1.35), rng.choice([2.0, 4.0, 8.0]))


def _smooth(rng: np.random.Generator) -> np.ndarray:
    return fractal(rng, 2.4, 3.0)


def _streaks(rng: np.random.Generator) -> np.ndarray:
    fy, fx = _frequencies()
    stretch = rng.uniform(4, 12)
    radius = np.hypot(fy * stretch, fx)
    return _filtered(rng, 1.0 / np.maximum(radius, rng.uniform(6, 30)) ** rng.uniform(1.0, 1.5))


def _fur(rng: np.random.Generator) -> np.ndarray:
    bend_y, bend_x = (18 * fractal(rng, 2.2) for _ in range(2))
    return _warped(_streaks(rng), bend_x, bend_y)


def _ripples(rng: np.random.Generator) -> np.ndarray:
    fy, fx = _frequencies()
    radius = np.hypot(fy, 3.5 * fx)
    peak = rng.uniform(12, 30)
    field = _filtered(rng, np.exp(-((np.log((radius + 1) / peak)) ** 2) / 0.7))
    return np.abs(field) ** rng.uniform(0.5, 1.0)


def _warped(field: np.ndarray, shift_x: np.ndarray, shift_y: np.ndarray) -> np.ndarray:
    grid_y, grid_x = np.mgrid[:TILE_PX, :TILE_PX].astype(np.float32)
    return cv2.remap(
        field.astype(np.float32),
        (grid_x + shift_x.astype(np.float32)) % TILE_PX,
        (grid_y + shift_y.astype(np.float32)) % TILE_PX,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_WRAP,
    )


def _folds(rng: np.random.Generator) -> np.ndarray:
    phase = fractal(rng, 2.4) * rng.uniform(2, 4)
    return np.sin(phase + 0.5 * fractal(rng, 2.0)) + 0.25 * np.abs(fractal(rng, 1.8))


def _emboss(rng: np.random.Generator) -> np.ndarray:
    """A bumpy surface lit from the side: the slope of smooth noise."""
    field = fractal(rng, rng.uniform(1.7, 2.3), 4.0)
    step = 4
    lit = field - np.roll(field, (step, step // 2), (0, 1))
    return np.tanh(1.2 * lit / lit.std())


def _ridges(rng: np.random.Generator) -> np.ndarray:
    return -(np.abs(fractal(rng, 1.5, 5.0)) ** 0.7)


def _stamp(tile: np.ndarray, polygon: np.ndarray, value: float) -> None:
    low, high = polygon.min(0), polygon.max(0)
    for shift_y in (0, TILE_PX):
        for shift_x in (0, TILE_PX):
            if (high[0] < shift_x and shift_x) or (high[1] < shift_y and shift_y):
                continue
            moved = polygon - (shift_x, shift_y)
            if low[0] - shift_x < TILE_PX and low[1] - shift_y < TILE_PX:
                cv2.fillPoly(tile, [moved.astype(np.int32)], value)


def _leaves(rng: np.random.Generator) -> np.ndarray:
    """Mini dead leaves: pointed leaves with a lit and a dim half."""
    tile = np.full((TILE_PX, TILE_PX), 0.1, np.float32)
    size = rng.uniform(9, 24)
    along = np.linspace(0, math.pi, 9)
    spread = rng.uniform(0.3, 6.3)
    heading = rng.uniform(0, 6.3)
    for _ in range(int(2.6 * (TILE_PX / size) ** 2)):
        angle = heading + spread * (rng.random() - 0.5)
        length = size * rng.lognormal(0, 0.35)
        width = length * rng.uniform(0.2, 0.5)
        axis = np.array([math.cos(angle), math.sin(angle)])
        side = np.array([-axis[1], axis[0]])
        spine = rng.random(2) * TILE_PX + np.cos(along)[:, None] * length * axis
        value = rng.normal(0.5, 0.22)
        lit = rng.uniform(0.0, 0.25)
        for half, tone in ((1, value + lit), (-1, value - lit)):
            rim = spine + half * np.sin(along)[:, None] * width * side
            _stamp(tile, np.concatenate([spine[::-1], rim]), tone)
    return tile + 0.05 * fractal(rng, 1.0)


def _pebbles(rng: np.random.Generator) -> np.ndarray:
    """Mini dead leaves: discs with a lit cap."""
    tile = np.full((TILE_PX, TILE_PX), 0.1, np.float32)
    size = rng.uniform(6, 20)
    turn = np.linspace(0, 2 * math.pi, 12, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)], 1)
    for _ in range(int(1.6 * (TILE_PX / size) ** 2)):
        radius = np.clip(size * rng.pareto(2.5), size * 0.3, size * 3)
        centre = rng.random(2) * TILE_PX
        stretch = circle * radius * (1, rng.uniform(0.5, 1)) * rng.uniform(0.85, 1.1, (12, 1))
        value = rng.normal(0.5, 0.2)
        for shrink, tone in ((1.0, value - 0.25), (0.8, value), (0.4, value + 0.12)):
            _stamp(tile, centre + stretch * shrink - (1 - shrink) * radius * 0.4, tone)
    return tile + 0.06 * fractal(rng, 1.0)


def _cells(rng: np.random.Generator) -> np.ndarray:
    """Cracked cells: distance to random seeds, on the torus."""
    count = int(rng.uniform(150, 700))
    seeds = np.full((TILE_PX, TILE_PX), 255, np.uint8)
    seeds[rng.integers(0, TILE_PX, count), rng.integers(0, TILE_PX, count)] = 0
    pad = 64
    wide = np.pad(seeds, pad, mode="wrap")
    distance, labels = cv2.distanceTransformWithLabels(
        wide, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    tone = rng.random(labels.max() + 1)[labels]
    field = tone * rng.uniform(0, 1) - distance / distance.std() * rng.uniform(0.1, 0.5)
    return field[pad:-pad, pad:-pad]


def _bricks(rng: np.random.Generator) -> np.ndarray:
    rows = int(rng.choice([16, 24, 32]))
    height = TILE_PX / rows
    columns = int(rows / rng.uniform(0.9, 2.6))
    width = TILE_PX / columns
    grid_y, grid_x = np.mgrid[:TILE_PX, :TILE_PX]
    row = (grid_y // height).astype(int)
    offset = grid_x + (row % 2) * width * rng.choice([0.0, 0.5])
    column = (offset // width).astype(int) % columns
    tone = rng.normal(0, 1, (rows, columns))[row, column] * rng.uniform(0.2, 1)
    joint = np.minimum(grid_y % height, offset % width) < rng.uniform(1.2, 3)
    return tone - joint * rng.choice([-2.5, 2.5]) + 0.4 * fractal(rng, 1.0)


def _stripes(rng: np.random.Generator) -> np.ndarray:
    cycles = int(rng.integers(10, 40))
    wobble = fractal(rng, 2.2) * rng.uniform(0, 10)
    position = np.arange(TILE_PX)[None, :] + wobble
    wave = np.sin(2 * math.pi * cycles * position / TILE_PX)
    wave = wave + 0.5 * np.sin(2 * math.pi * position * (cycles // 3) / TILE_PX)
    return np.tanh(wave * rng.uniform(1, 6)) + 0.2 * fractal(rng, 1.0)


def _weave(rng: np.random.Generator) -> np.ndarray:
    cycles = int(rng.integers(12, 40))
    grid = np.sin(2 * math.pi * cycles * np.arange(TILE_PX) / TILE_PX)
    sharp = rng.uniform(1, 5)
    return np.tanh(grid * sharp)[:, None] + np.tanh(grid * sharp)[None] + 0.3 * fractal(rng, 1.0)


def _spots(rng: np.random.Generator) -> np.ndarray:
    fy, fx = _frequencies()
    peak = rng.uniform(12, 36)
    band = np.exp(-(((np.hypot(fy, fx) - peak) / (0.25 * peak)) ** 2))
    field = _filtered(rng, band)
    return np.tanh((field - rng.uniform(0, 0.8)) * 5) + 0.3 * fractal(rng, 1.0)


def _wood(rng: np.random.Generator) -> np.ndarray:
    bend = 30 * fractal(rng, 2.6)
    fy, fx = _frequencies()
    grain = _filtered(rng, 1.0 / np.maximum(np.hypot(fy * 14, fx), 5) ** 1.2)
    return _warped(grain, bend, bend) + 0.6 * np.sin(fractal(rng, 2.2) * 6)


def _planks(rng: np.random.Generator) -> np.ndarray:
    count = int(rng.choice([8, 16, 32]))
    width = TILE_PX // count
    column = np.arange(TILE_PX)
    tone = rng.normal(0, 1, count)[column // width] - 2.0 * (column % width < 2)
    return tone[None] + 0.7 * _streaks(rng)


_FAMILIES: dict[str, tuple[Maker, int]] = {
    "noise": (_noise, 8),
    "smooth": (_smooth, 6),
    "streaks": (_streaks, 4),
    "fur": (_fur, 5),
    "ripples": (_ripples, 4),
    "folds": (_folds, 6),
    "ridges": (_ridges, 4),
    "emboss": (_emboss, 6),
    "leaves": (_leaves, 7),
    "pebbles": (_pebbles, 5),
    "cells": (_cells, 3),
    "bricks": (_bricks, 5),
    "stripes": (_stripes, 4),
    "weave": (_weave, 3),
    "spots": (_spots, 4),
    "wood": (_wood, 4),
    "planks": (_planks, 3),
}
