"""Acting: puts a figure on the canvas, with its looks, its shadow, its labels and its depth."""

import math
from dataclasses import dataclass

import numpy as np

from pipelines.train.scenes.canvas import Canvas, Finish
from pipelines.train.scenes.dice import Dice
from pipelines.train.scenes.figure import Figure
from pipelines.train.scenes.looks import Look, hazed, make_look
from pipelines.train.scenes.outlines import bent
from pipelines.train.scenes.palette import Rgb, colour, near

CAMOUFLAGE = 0.22


@dataclass(frozen=True)
class Place:
    """Where a figure goes: centre (x, y) and half height in pixels, `angle` in radians.

    `blur_px` is its defocus, `haze` (0..1) its distance, `cast` how it throws its shadow: onto
    the "ground" it stands on, "drop" onto what lies behind, a "mirror" below it, or "none".
    """

    x: float
    y: float
    half_px: float
    angle: float = 0.0
    blur_px: float = 0.0
    haze: float = 0.0
    cast: str = "drop"


def put(
    canvas: Canvas,
    dice: Dice,
    figure: Figure,
    place: Place,
    group: int,
    looks: list[Look] | None = None,
) -> list[Look]:
    """Paint a figure as one object of `group`; returns its looks so that a twin may wear them."""
    outlines = _placed(dice, figure, place)
    if looks is None:
        looks = dress(canvas, dice, figure, place)
    if figure.shadow and place.cast != "none" and place.half_px > 4 * canvas.unit_px:
        _cast(canvas, dice, [o for piece in outlines for o in piece], place, figure.shadow)
    owner = canvas.new_object(group)
    ids: dict[int, int] = {}
    gloss = dice.uniform(0, 0.6) if dice.chance(0.3) else 0.0
    roundness = dice.uniform(0.5, 1.0)
    for piece, curves in zip(figure.pieces, outlines, strict=True):
        numbers = [piece.part + k for k in range(len(curves))] if piece.each else [piece.part]
        for number in numbers:
            key = 0 if figure.whole else number
            if key not in ids:
                ids[key] = canvas.new_part(owner)
        look = looks[0 if figure.whole else min(piece.skin, len(looks) - 1)]
        look = hazed(look, canvas.light.haze, place.haze)
        finish = Finish(
            tone=piece.tone,
            relief=piece.relief * roundness,
            gloss=gloss,
            rag=piece.rag * min(1.0, place.half_px / (50 * canvas.unit_px)),
            blur_px=place.blur_px,
            hollow=piece.hollow,
        )
        canvas.paint(curves, [ids[0 if figure.whole else n] for n in numbers], look, finish)
    return looks


def dress(canvas: Canvas, dice: Dice, figure: Figure, place: Place) -> list[Look]:
    """A look for each skin of a figure; some take their colour from what lies behind."""
    hidden = dice.chance(CAMOUFLAGE)
    behind = canvas.mean_colour(place.x, place.y, place.half_px) if hidden else None
    fine = dice.log_uniform(0.6, 1.8) * (60 * canvas.unit_px / max(place.half_px, 4)) ** 0.5
    looks: list[Look] = []
    named: dict[str, Rgb] = {}
    for name, hue in zip(figure.dress, figure.hues, strict=False):
        base = named.get(hue) if hue != "any" else None
        base = base or colour(dice, hue)
        named[hue] = base
        if behind is not None and not looks:
            base = near(dice, behind, 0.12)
        looks.append(make_look(dice, name, near(dice, base, 0.06), canvas.size_px, zoom=fine))
    return looks


def _placed(dice: Dice, figure: Figure, place: Place) -> list[list[np.ndarray]]:
    wide = place.half_px * figure.aspect * dice.uniform(0.88, 1.12) * dice.sign()
    shear = dice.normal(0, 0.06)
    bend, phase = dice.normal(0, 0.04), dice.uniform(0, 6.3)
    cos, sin = math.cos(place.angle), math.sin(place.angle)
    stretch = np.array([[wide, shear * place.half_px], [0.0, place.half_px]])
    matrix = (np.array([[cos, -sin], [sin, cos]]) @ stretch).T
    flat = [outline for piece in figure.pieces for outline in piece.outlines]
    moved = bent(np.concatenate(flat), bend, phase) @ matrix + (place.x, place.y)
    moved = moved.astype(np.float32)
    placed: list[list[np.ndarray]] = []
    start = 0
    for piece in figure.pieces:
        curves = []
        for outline in piece.outlines:
            curves.append(moved[start : start + len(outline)])
            start += len(outline)
        placed.append(curves)
    return placed


def _cast(
    canvas: Canvas, dice: Dice, outlines: list[np.ndarray], place: Place, weight: float
) -> None:
    light = canvas.light
    strength = light.shadow * weight * (1 - place.haze)
    softness = light.softness_px * canvas.unit_px * (0.4 + place.half_px / (70 * canvas.unit_px))
    if place.cast in ("ground", "mirror"):
        foot = max(float(o[:, 1].max()) for o in outlines)
        lean, flat = -light.x * 1.1, dice.uniform(0.12, 0.3) * (1 if light.z < 0.6 else -1)
        if place.cast == "mirror":
            lean, flat, strength = 0.0, dice.uniform(0.6, 0.95), dice.uniform(0.2, 0.6)
            foot -= 0.06 * place.half_px
        shear = np.array([[1, 0], [-lean, -flat]], np.float32)
        shift = np.array([lean * foot, (1 + flat) * foot], np.float32)
        moved = [outline @ shear + shift for outline in outlines]
        canvas.shade(moved, strength, min(softness, 6 * canvas.unit_px) * 0.7)
        return
    reach = place.half_px * dice.uniform(0.04, 0.22)
    offset = np.array([-light.x * reach, -light.y * reach])
    canvas.shade([o + offset.astype(np.float32) for o in outlines], strength, softness)
