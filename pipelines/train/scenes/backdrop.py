"""Backdrops: sky, hills, ground, water, rooms and plain walls, each band a region of its own."""

from dataclasses import dataclass

import cv2
import numpy as np

from pipelines.train.scenes.bank import bank, sample
from pipelines.train.scenes.canvas import Canvas, Finish
from pipelines.train.scenes.dice import Dice
from pipelines.train.scenes.looks import Look, hazed, make_look, receding
from pipelines.train.scenes.outlines import fractal_line
from pipelines.train.scenes.palette import Rgb, colour, near


@dataclass(frozen=True)
class Setting:
    """Where the actors stand: where the ground begins, its group, and whether it is water."""

    horizon_px: float
    ground_group: int
    mirrors: bool = False


def _region(canvas: Canvas) -> int:
    """A new part that is its own object and group."""
    return canvas.new_part(canvas.new_object(canvas.new_group()))


def fill(canvas: Canvas, look: Look) -> None:
    """One region over the whole frame."""
    size = canvas.size_px
    canvas.image[:] = look.render(0, 0, size, size)
    canvas.part[:] = _region(canvas)


def sky(canvas: Canvas, dice: Dice) -> None:
    """A vertical gradient with clouds that stay part of the sky."""
    size = canvas.size_px
    haze = np.array(canvas.light.haze, np.float32)
    kind = dice.weighted(("clear", "cloudy", "overcast", "dusk"), (4, 5, 3, 1))
    top = np.array(colour(dice, {"overcast": "grey", "dusk": "skin"}.get(kind, "blue")), np.float32)
    share = np.linspace(0, 1, size, dtype=np.float32)[:, None, None] ** dice.uniform(0.5, 1.5)
    canvas.image[:] = top + (haze - top) * share
    canvas.part[:] = _region(canvas)
    if kind == "clear" and dice.chance(0.6):
        return
    tile = dice.pick(bank()["noise" if dice.chance(0.4) else "smooth"])
    reach = dice.log_uniform(0.8, 3.2) / canvas.unit_px
    shift = dice.uniform(0, 512), dice.uniform(0, 512)
    matrix = np.array([[reach, 0, shift[0]], [0, reach * dice.uniform(1, 3), shift[1]]])
    fine = sample(dice.pick(bank()["noise"]), 0, matrix, size, size)
    noise = cv2.addWeighted(sample(tile, 0, matrix, size, size), 0.75, fine, 0.25, 0)
    low, width = dice.uniform(85, 150), dice.uniform(40, 140)
    levels = np.clip((np.arange(256, dtype=np.float32) - low) / width, 0, 1)
    cover = cv2.LUT(noise, levels * dice.uniform(0.3, 0.95))
    lit = dice.uniform(0.75, 1.0)
    cloud = cv2.LUT(
        noise, np.clip(255 * lit - 0.5 * np.abs(np.arange(256) - 150), 0, 255).astype(np.float32)
    )
    canvas.image += cover[..., None] * (cloud[..., None] - canvas.image)


def band(canvas: Canvas, line_px: np.ndarray, look: Look, finish: Finish) -> int:
    """A region from a line of heights (N,) across the frame down to its lower edge; its part id."""
    size = canvas.size_px
    x = np.linspace(-8, size + 8, len(line_px))
    curve = np.stack([x, line_px], 1)
    corners = np.array([[size + 8.0, size + 8.0], [-8.0, size + 8.0]])
    part = _region(canvas)
    canvas.paint([np.concatenate([curve, corners])], [part], look, finish)
    return part


def _line(canvas: Canvas, dice: Dice, height: float, swing: float, rough: float) -> np.ndarray:
    tilt = np.linspace(-1, 1, 64) * dice.normal(0, 0.02)
    return canvas.size_px * (height + tilt + swing * fractal_line(dice, 64, rough))


def outdoors(canvas: Canvas, dice: Dice, ground: str | None = None) -> Setting:
    """Sky over up to three hazy ranges over ground or water."""
    size = canvas.size_px
    horizon = dice.uniform(0.15, 0.7)
    sky(canvas, dice)
    ranges = dice.weighted((0, 1, 2, 3), (3, 4, 2, 1))
    for k in range(ranges):
        far = 1 - (k + 1) / (ranges + 1)
        name = dice.weighted(("foliage", "brown", "blue", "grey", "dry"), (5, 2, 1, 2, 1))
        dress = "foliage" if name == "foliage" else "rock"
        look = make_look(
            dice, dress, colour(dice, name), size, zoom=dice.uniform(1.2, 4), drama=0.7
        )
        look = hazed(look, canvas.light.haze, far * dice.uniform(0.3, 0.9))
        rise = dice.uniform(0.02, 0.25) * (far + 0.3)
        line = _line(
            canvas, dice, horizon - rise, dice.uniform(0.01, 0.12), dice.uniform(0.35, 0.75)
        )
        band(canvas, line, look, Finish(rag=dice.uniform(0.1, 0.6) if dress == "foliage" else 0.0))
    kind = ground or dice.weighted(("land", "water", "both"), (6, 2, 2))
    part = -1
    if kind in ("water", "both"):
        part = water(canvas, dice, horizon)
    if kind != "water":
        low = horizon if kind == "land" else horizon + (1 - horizon) * dice.uniform(0.3, 0.7)
        part = land(canvas, dice, low)
    group = canvas.group_of_object[canvas.object_of_part[part]]
    return Setting(horizon * size, group, mirrors=kind == "water")


def land(canvas: Canvas, dice: Dice, height: float) -> int:
    """A receding ground from relative `height` down, sometimes crossed by a path; its part id."""
    size = canvas.size_px
    name = dice.weighted(("foliage", "dry", "brown", "sand", "grey", "pale"), (6, 3, 3, 3, 3, 1))
    look = make_look(dice, "ground", colour(dice, name), size, zoom=dice.log_uniform(0.5, 2))
    if dice.chance(0.7):
        look = receding(look, size * height - 6)
    line = _line(canvas, dice, height, dice.uniform(0, 0.03), 0.55)
    part = band(canvas, line, look, Finish(rag=dice.uniform(0.1, 0.4) if dice.chance(0.4) else 0.0))
    if dice.chance(0.25):
        _path(canvas, dice, height)
    return part


def _path(canvas: Canvas, dice: Dice, height: float) -> None:
    size = canvas.size_px
    look = make_look(
        dice, "ground", colour(dice, dice.pick(("grey", "sand", "brown"))), size, drama=0.7
    )
    depth = np.linspace(0, 1, 16)
    middle = (
        dice.uniform(0.2, 0.8)
        + (dice.uniform(-0.2, 1.2) - 0.5) * depth
        + dice.normal(0, 0.1) * np.sin(4 * depth)
    )
    half = 0.01 + dice.uniform(0.08, 0.5) * depth**1.3
    y = height + 0.02 + (1.05 - height) * depth
    left = np.stack([middle - half, y], 1)
    right = np.stack([middle + half, y], 1)[::-1]
    canvas.paint([size * np.concatenate([left, right])], [_region(canvas)], look, Finish())


def water(canvas: Canvas, dice: Dice, height: float) -> int:
    """Water that mirrors what is above its line at relative `height`, with ripples; its part id."""
    size = canvas.size_px
    base = near(dice, canvas.mean_colour(size / 2, size * height * 0.5, size * height * 0.5), 0.2)
    base = colour(dice, "water") if dice.chance(0.5) else base
    look = make_look(dice, "water", base, size, zoom=dice.log_uniform(0.7, 3))
    line = _line(canvas, dice, height, 0.002, 0.5)
    top = int(size * height)
    mirror = canvas.image[max(0, 2 * top - size) : top][::-1].copy()
    part = band(
        canvas, line, receding(look, size * height - 6) if dice.chance(0.7) else look, Finish()
    )
    share = dice.uniform(0.0, 0.6)
    rows = min(len(mirror), size - top)
    if rows > 8:
        mirror = cv2.blur(mirror[:rows], (max(1, size // 60), max(1, size // 20)))
        here = canvas.image[top : top + rows]
        cv2.addWeighted(here, 1 - share, mirror, share, 0, here)
    return part


def indoors(canvas: Canvas, dice: Dice) -> Setting:
    """One or two walls and a table or floor."""
    size = canvas.size_px
    wall = colour(dice, dice.weighted(("sand", "grey", "pale", "any", "dark"), (4, 3, 3, 4, 2)))
    fill(canvas, make_look(dice, dice.pick(("wall", "plain")), wall, size, drama=0.6))
    if dice.chance(0.35):
        _side_wall(canvas, dice, wall)
    canvas.image *= (
        1 + dice.uniform(-0.3, 0.3) * np.linspace(-1, 1, size, dtype=np.float32)[None, :, None]
    )
    height = dice.uniform(0.4, 0.85)
    name = dice.weighted(("brown", "grey", "pale", "any", "sand"), (5, 2, 2, 3, 2))
    look = make_look(
        dice, dice.pick(("bark", "plain", "cloth", "wall")), colour(dice, name), size, drama=0.7
    )
    if dice.chance(0.5):
        look = receding(look, size * height - 20)
    line = size * (height + np.linspace(-1, 1, 4) * dice.normal(0, 0.04))
    canvas.shade(
        [
            np.array(
                [
                    [-9, line[0] - 5],
                    [size + 9, line[-1] - 5],
                    [size + 9, line[-1] + 9],
                    [-9, line[0] + 9],
                ]
            )
        ],
        dice.uniform(0, 0.5),
        5 * canvas.unit_px,
    )
    part = band(canvas, line, look, Finish())
    return Setting(size * height, canvas.group_of_object[canvas.object_of_part[part]])


def _side_wall(canvas: Canvas, dice: Dice, wall: Rgb) -> None:
    size = canvas.size_px
    x = dice.uniform(0.15, 0.85) * size
    edge = -8.0 if dice.chance(0.5) else size + 8.0
    outline = np.array([[x, -8], [edge, -8], [edge, size + 8], [x + dice.normal(0, 4), size + 8]])
    look = make_look(dice, "wall", near(dice, wall, 0.1), size, drama=0.6)
    canvas.paint([outline], [_region(canvas)], look, Finish(tone=dice.uniform(0.6, 0.95)))


def terrain(canvas: Canvas, dice: Dice) -> Setting:
    """The frame cut by rough lines into three to seven stretches of rock, snow, scrub or field."""
    size = canvas.size_px
    names = ("foliage", "dry", "brown", "sand", "grey", "pale", "water", "brick")
    fill(canvas, make_look(dice, "rock", colour(dice, dice.pick(names)), size))
    for _ in range(dice.integer(2, 6)):
        name = dice.pick(names)
        dress = {"foliage": "foliage", "water": "water"}.get(name) or dice.pick(("rock", "ground"))
        look = make_look(dice, dress, colour(dice, name), size, zoom=dice.log_uniform(0.5, 3))
        along = np.linspace(-1, 1, 72)
        rough = dice.uniform(0.02, 0.2) * fractal_line(dice, 72, dice.uniform(0.4, 0.8))
        near_edge = np.stack([along, rough], 1)
        stretch = np.concatenate([near_edge, [[1.0, 2.0], [-1.0, 2.0]]])
        angle = dice.uniform(-3.2, 3.2) if dice.chance(0.4) else dice.normal(0, 0.35)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        centre = np.array([dice.uniform(0.2, 0.8), dice.uniform(0.15, 0.9)])
        outline = size * (centre + 1.2 * stretch @ turn)
        if dice.chance(0.4):
            drop = outline + size * np.array([0.0, -0.02])
            canvas.shade([drop.astype(np.float32)], canvas.light.shadow, 4 * canvas.unit_px)
        rag = dice.uniform(0.1, 0.7) if dress == "foliage" or dice.chance(0.3) else 0.0
        canvas.paint([outline], [_region(canvas)], look, Finish(rag=rag, relief=0.3))
    return Setting(size * dice.uniform(0.2, 0.6), 0)


def plain(canvas: Canvas, dice: Dice) -> Setting:
    """A single backdrop, textured or blurred out of recognition."""
    size = canvas.size_px
    dress = dice.weighted(
        ("plain", "foliage", "any", "ground", "wall", "water"), (4, 4, 3, 3, 2, 1)
    )
    name = "foliage" if dress == "foliage" else "any"
    fill(canvas, make_look(dice, dress, colour(dice, name), size))
    if dice.chance(0.5):
        blotches = dice.pick(bank()["smooth"])[2][:32, :32]
        tint = np.array(colour(dice), np.float32) / 128
        field = cv2.resize(blotches, (size, size), interpolation=cv2.INTER_CUBIC).astype(np.float32)
        share = np.clip((field - dice.uniform(80, 160)) / 60, 0, 1)[..., None] * dice.uniform(
            0.2, 0.8
        )
        canvas.image *= 1 - share + share * tint
    return Setting(size * dice.uniform(0.3, 0.7), 0)
