"""Figures of the street and the shore: vehicles, buildings, signs, fences, lamps."""

import numpy as np

from pipelines.train.scenes.dice import Dice
from pipelines.train.scenes.figure import HUES, Figure, Piece, piece
from pipelines.train.scenes.outlines import (
    Outline,
    bone,
    ellipse,
    limb,
    points,
    rectangle,
    rounded,
    wander,
)


def car(dice: Dice) -> Figure:
    """A car, van or bus from the side: body, windows, wheels with hubs, lamps."""
    roof, long = dice.uniform(-0.75, -0.4), dice.uniform(0.1, 0.9)
    body = points(
        (-1, 0.1),
        (-0.95, -0.15),
        (-long, -0.2),
        (-long + 0.25, roof),
        (long * 0.6, roof),
        (long * 0.6 + 0.3, -0.15),
        (0.97, -0.05),
        (1, 0.4),
        (-1, 0.4),
    )
    pieces = [piece(body, 0, 0, relief=0.5)]
    left, right = -long + 0.15, long * 0.6 + 0.1
    panes = dice.integer(1, 4)
    step = (right - left) / panes
    windows = tuple(
        rectangle(left + k * step + 0.03, roof + 0.08, left + (k + 1) * step - 0.03, -0.18)
        for k in range(panes)
    )
    if roof < -0.3:
        pieces.append(Piece(windows, 4, 1, relief=0.0, each=True))
    radius = dice.uniform(0.17, 0.26)
    for part, x in ((1, -0.58), (2, 0.58)):
        pieces.append(piece(ellipse(x, 0.4, radius, radius), part, 2, relief=0.3))
        pieces.append(piece(ellipse(x, 0.4, radius * 0.55, radius * 0.55), part, 3, relief=0.3))
    pieces.append(piece(ellipse(0.92, 0.08, 0.06, 0.06), 3, 3))
    hue = dice.pick(("loud", "grey", "pale", "dark", "blue", "warm"))
    return Figure(
        tuple(pieces),
        ("metal", "metal", "skin", "metal"),
        (hue, dice.pick(("dark", "blue")), "dark", "grey"),
        1.8,
    )


def boat(dice: Dice) -> Figure:
    """A hull with a cabin or with a mast and sails."""
    hull = points((-1, 0.35), (1, dice.uniform(0.2, 0.4)), (0.75, 0.85), (-0.8, 0.85))
    pieces = [piece(hull, 0, 0, relief=0.6)]
    if dice.chance(0.5):
        pieces.insert(0, piece(bone(0, 0.4, 0, -1, 0.02, 0.015), 1, 3))
        pieces.append(piece(points((0.04, -0.95), (0.7, 0.2), (0.04, 0.25)), 2, 1, relief=0.4))
        pieces.append(piece(points((-0.04, -0.7), (-0.6, 0.2), (-0.04, 0.25)), 3, 1, relief=0.4))
    else:
        pieces.insert(0, piece(rectangle(-0.5, -0.05, 0.3, 0.4), 1, 1, relief=0.1))
        panes = tuple(rectangle(-0.42 + 0.25 * k, 0.03, -0.24 + 0.25 * k, 0.2) for k in range(3))
        pieces.insert(1, Piece(panes, 2, 2, tone=0.5, relief=0.0, each=True))
    return Figure(
        tuple(pieces),
        ("wall", "cloth", "metal", "metal"),
        (dice.pick(HUES), "pale", "dark", "grey"),
        1.4,
    )


def building(dice: Dice) -> Figure:
    """A front, sometimes with a side and a roof, with a grid of windows and a door."""
    top, side = dice.uniform(-1.0, -0.2), dice.uniform(0.25, 0.7) if dice.chance(0.5) else 1.0
    slant = dice.uniform(0.0, 0.25)
    front = points((-1, top), (side, top), (side, 1), (-1, 1))
    pieces = [piece(front, 0, 0, relief=0.0)]
    if side < 1:
        flank = points((side, top), (1, top + slant), (1, 1 - slant * 0.2), (side, 1))
        pieces.append(piece(flank, 1, 0, tone=dice.uniform(0.5, 0.8), relief=0.0))
    if dice.chance(0.5):
        ridge = top - dice.uniform(0.15, 0.5)
        gable = points(
            (-1.08, top + 0.03),
            (-1 + dice.uniform(0, 0.9), ridge),
            (dice.uniform(0.2, 0.8), ridge),
            (1.05, top + slant),
        )
        pieces.append(piece(gable, 2, 1, relief=0.1))
    columns, rows = dice.integer(2, 6), dice.integer(1, 6)
    wide, tall = (side + 1) / columns, (0.85 - top) / rows
    inset, sill = dice.uniform(0.15, 0.33), dice.uniform(0.12, 0.3)
    windows = tuple(
        rectangle(
            -1 + (c + inset) * wide,
            top + (r + sill) * tall,
            -1 + (c + 1 - inset) * wide,
            top + (r + 1 - sill) * tall,
        )
        for r in range(rows)
        for c in range(columns)
    )
    pieces.append(Piece(windows, 4, 2, relief=0.0, each=True))
    if dice.chance(0.5):
        x = dice.uniform(-0.8, side - 0.2)
        pieces.append(piece(rectangle(x, 0.55, x + 0.22, 1.0), 3, 3, relief=0.0))
    hues = (
        dice.pick(("sand", "brick", "grey", "pale", "brown", "any")),
        dice.pick(("brick", "dark", "grey")),
    )
    return Figure(
        tuple(pieces),
        ("wall", "wall", "metal", "wall"),
        (*hues, dice.pick(("dark", "dark", "blue")), "any"),
        dice.uniform(0.6, 1.8),
    )


def sign(dice: Dice) -> Figure:
    """A plate with glyphs, on a pole or hung."""
    plate = dice.pick(
        (rounded(0, -0.4, 0.8, 0.5, 8), ellipse(0, -0.4, 0.6, 0.6), rectangle(-0.9, -0.9, 0.9, 0.0))
    )
    pieces = [piece(bone(0, -0.3, 0, 1.0, 0.05, 0.05), 1, 1)] if dice.chance(0.6) else []
    pieces.append(piece(plate, 0, 0, relief=0.1))
    count = dice.integer(1, 6)
    pieces += [
        piece(_glyph(dice, -0.6 + 1.2 * (k + 0.5) / count, -0.4, 0.5 / count), 2 + k, 2, relief=0.0)
        for k in range(count)
    ]
    return Figure(
        tuple(pieces),
        ("plain", "metal", "plain"),
        (dice.pick(HUES), "grey", dice.pick(("pale", "dark"))),
        1.0,
        dice.chance(0.3),
    )


def _glyph(dice: Dice, x: float, y: float, size: float) -> Outline:
    path = wander(dice, x - size * 0.6, y, dice.uniform(-1.5, 1.5), size * 4, 3.0, 8)
    path += (x, y) - path.mean(0)
    return limb(path, np.full(8, size * 0.25))


def fence(dice: Dice) -> Figure:
    """Posts and rails, one region with gaps through which the rest is seen."""
    posts = dice.integer(3, 12)
    thick = dice.uniform(0.15, 0.6) / posts
    bars = [
        rectangle(x - thick, -0.6, x + thick, 1.0)
        for x in np.linspace(-1 + thick, 1 - thick, posts)
    ]
    bars += [
        rectangle(-1, y, 1, y + dice.uniform(0.05, 0.12)) for y in (-0.35, dice.uniform(0.2, 0.6))
    ]
    return Figure(
        (Piece(tuple(bars), relief=0.3),),
        (dice.pick(("bark", "metal")),),
        (dice.pick(("brown", "grey", "pale", "dark")),),
        dice.uniform(1, 3),
        True,
        0.5,
    )


def lamp(dice: Dice) -> Figure:
    """A pole, often with an arm and a head."""
    thick = dice.uniform(0.02, 0.07)
    pieces = [piece(bone(0, -0.9, 0, 1.0, thick * 0.7, thick), 0, 0, relief=0.8)]
    if dice.chance(0.7):
        reach = dice.uniform(0.2, 0.6) * dice.sign()
        pieces.append(piece(bone(0, -0.85, reach, -0.95, thick * 0.6, thick * 0.5, 0.1), 0, 0))
        pieces.append(piece(ellipse(reach, -0.92, 0.15, 0.08), 1, 1))
    return Figure(
        tuple(pieces),
        ("metal", "plain"),
        (dice.pick(("dark", "grey", "brown")), "pale"),
        0.7,
        dice.chance(0.5),
    )


def plane(dice: Dice) -> Figure:
    """An aeroplane: fuselage, wings, tail."""
    sweep = dice.uniform(0.1, 0.5)
    pieces = (
        piece(
            points((0.2, -0.05), (-sweep, -0.8), (-sweep - 0.2, -0.8), (-0.2, -0.05)),
            1,
            0,
            tone=0.8,
        ),
        piece(bone(-0.95, 0, 0.95, 0, 0.06, 0.1), 0, 0, relief=0.9),
        piece(
            points((0.2, 0.05), (-sweep, 0.75), (-sweep - 0.2, 0.75), (-0.2, 0.05)), 2, 0, tone=1.05
        ),
        piece(points((-0.7, 0), (-1, -0.4), (-0.85, -0.4), (-0.5, -0.02)), 3, 1),
    )
    return Figure(
        pieces,
        ("metal", "metal"),
        (dice.pick(("pale", "grey", "dark")), "any"),
        1.4,
        dice.chance(0.5),
        0.0,
    )


BUILT = (car, boat, building, sign, fence, lamp, plane)
