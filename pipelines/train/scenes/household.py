"""Figures of the home: windows, shelves, screens, sofas, plates, umbrellas, bicycles."""

import math
from itertools import pairwise

import numpy as np

from pipelines.train.scenes.dice import Dice
from pipelines.train.scenes.figure import Figure, Piece, piece
from pipelines.train.scenes.outlines import (
    blob,
    bone,
    ellipse,
    limb,
    points,
    rectangle,
    rounded,
    wander,
)


def window(dice: Dice) -> Figure:
    """A frame about panes that each show their own light; doors and pictures look alike."""
    columns, rows = dice.integer(1, 3), dice.integer(1, 3)
    bar = dice.uniform(0.03, 0.12)
    wide, tall = 2 / columns, 2 / rows
    panes = tuple(
        rectangle(
            c * wide - 1 + bar,
            r * tall - 1 + bar,
            (c + 1) * wide - 1 - bar,
            (r + 1) * tall - 1 - bar,
        )
        for r in range(rows)
        for c in range(columns)
    )
    pieces = [
        piece(rectangle(-1, -1, 1, 1), relief=0.2),
        Piece(panes, 1, 1, relief=0.0, each=True),
    ]
    glass = dice.pick(("pale", "blue", "dark", "foliage", "any"))
    dress = ("bark", dice.pick(("metal", "foliage", "any")))
    return Figure(
        tuple(pieces), dress, (dice.pick(("pale", "brown", "grey")), glass), dice.uniform(0.5, 1.4)
    )


def shelf(dice: Dice) -> Figure:
    """Boards with a row of books on each; books are parts."""
    rows = dice.integer(1, 3)
    tall = 2 / rows
    books: list[list[np.ndarray]] = [[], [], []]
    for row in range(rows):
        x, floor = -0.92, -1 + (row + 1) * tall - 0.06
        while x < 0.85:
            width = dice.uniform(0.06, 0.2)
            top = floor - tall * dice.uniform(0.55, 0.85)
            books[dice.integer(0, 2)].append(rectangle(x, top, min(x + width, 0.93), floor))
            x += width + 0.01
    pieces = [piece(rectangle(-1, -1, 1, 1), tone=0.55, relief=0.0)]
    pieces += [
        piece(rectangle(-1, r * tall - 1 - 0.05, 1, r * tall - 1 + 0.05), relief=0.1)
        for r in range(rows + 1)
    ]
    start = 1
    for skin, kind in enumerate(books, 1):
        if kind:
            pieces.append(Piece(tuple(kind), start, skin, relief=0.3, each=True))
            start += len(kind)
    hues = (dice.pick(("brown", "grey", "pale")), "any", "any", "any")
    return Figure(tuple(pieces), ("bark", "plain", "plain", "cloth"), hues, dice.uniform(0.8, 2.0))


def screen(dice: Dice) -> Figure:
    """A television, laptop or telephone."""
    bezel = dice.uniform(0.04, 0.14)
    pieces = []
    if dice.chance(0.5):
        keys = points((-1, 0.5), (1, 0.5), (1.25, 1.0), (-1.25, 1.0))
        pieces.append(piece(keys, 2, 2, relief=0.1))
    elif dice.chance(0.5):
        pieces.append(piece(points((-0.1, 0.4), (0.1, 0.4), (0.4, 1), (-0.4, 1)), 2, 0, relief=0.3))
    pieces.append(piece(rounded(0, -0.2, 1, 0.75, 12), 0, 0, relief=0.1))
    pieces.append(piece(rounded(0, -0.2, 1 - bezel, 0.75 - bezel, 20), 1, 1, relief=0.0))
    hues = (dice.pick(("dark", "grey", "pale")), dice.pick(("dark", "blue", "any")), "dark")
    return Figure(tuple(pieces), ("metal", dice.pick(("plain", "any")), "wall"), hues, 1.2)


def sofa(dice: Dice) -> Figure:
    """A sofa, armchair or bed: back, seat, arms, cushions."""
    pieces = [
        piece(rounded(0, -0.3, 0.95, 0.65, 6), 1, 0, tone=0.9, relief=0.5),
        piece(rounded(0, 0.45, 0.95, 0.4, 8), 0, 0, relief=0.5),
    ]
    for k in range(dice.integer(0, 3)):
        x = -0.6 + 0.5 * k + dice.uniform(-0.1, 0.1)
        shape = rounded(x, dice.uniform(-0.1, 0.1), 0.25, 0.22, 4)
        pieces.append(piece(shape, 4 + k, 1 + k % 2, relief=0.9))
    for part, x in ((2, -0.95), (3, 0.95)):
        pieces.append(piece(rounded(x, 0.25, 0.18, 0.6, 5), part, 0, tone=0.95, relief=0.8))
    hue = dice.pick(("any", "brown", "grey", "pale", "brick"))
    return Figure(
        tuple(pieces), ("cloth", "cloth", "cloth"), (hue, "any", "pale"), 1.5, dice.chance(0.2)
    )


def plate(dice: Dice) -> Figure:
    """A dish seen aslant with heaps of food, each a part."""
    squash = dice.uniform(0.35, 1.0)
    pieces = [
        piece(ellipse(0, 0, 1, squash), 0, 0, relief=0.4),
        piece(ellipse(0, 0.02, 0.72, 0.7 * squash), 0, 0, tone=0.93, relief=0.2),
    ]
    for part in range(1, dice.integer(2, 6)):
        shape = blob(dice, 0.2) * dice.uniform(0.15, 0.45) * (1, 0.4 + 0.6 * squash)
        shape += (dice.normal(0, 0.3), dice.normal(0, 0.25) * squash)
        rag = dice.uniform(0, 0.5) if dice.chance(0.4) else 0.0
        pieces.append(piece(shape.astype(np.float32), part, 1 + part % 3, relief=0.9, rag=rag))
    hues = (
        dice.pick(("pale", "white", "any", "blue")),
        "warm",
        dice.pick(("foliage", "sand")),
        "brown",
    )
    return Figure(tuple(pieces), ("skin", "any", "foliage", "hide"), hues)


def umbrella(dice: Dice) -> Figure:
    """A parasol: wedge panels in two colours over a pole; balloons and tents look alike."""
    count = dice.integer(3, 7)
    edge = np.linspace(-1, 1, count + 1)
    droop = 0.05 + 0.15 * (1 - edge**2)
    pieces = [piece(bone(0, -0.8, dice.uniform(-0.2, 0.2), 1.0, 0.025, 0.03), 1, 2)]
    striped = dice.chance(0.6)
    for k in range(count):
        middle = (edge[k] + edge[k + 1]) / 2
        panel = points(
            (0, -0.95),
            (edge[k] * 0.75, -0.6),
            (edge[k], -0.2 + droop[k]),
            (middle, -0.28 + droop[k]),
            (edge[k + 1], -0.2 + droop[k + 1]),
            (edge[k + 1] * 0.75, -0.6),
        )
        tone = 1.1 - 0.45 * k / count
        pieces.append(piece(panel, 0, k % 2 if striped else 0, tone=tone, relief=0.1))
    hues = (dice.pick(("loud", "warm", "any", "dark")), dice.pick(("pale", "loud")), "grey")
    return Figure(tuple(pieces), ("plain", "plain", "metal"), hues, 1.1, False, 0.6)


def bicycle(dice: Dice) -> Figure:
    """Two spoked wheels and a frame through which the rest is seen."""
    turn = ellipse(0, 0, 1, 1)
    tyre, hole = 0.42, dice.uniform(0.34, 0.38)
    pieces = []
    for part, x in ((1, -0.58), (2, 0.58)):
        rim = tuple((turn * r + (x, 0.5)).astype(np.float32) for r in (tyre, hole))
        pieces.append(Piece(rim, part, 1, relief=0.2, hollow=True))
    thick = dice.uniform(0.025, 0.05)
    path = points(
        (-0.58, 0.5),
        (-0.25, -0.2),
        (0.35, -0.25),
        (0.58, 0.5),
        (0.35, -0.25),
        (0, 0.5),
        (-0.25, -0.2),
    )
    tubes = tuple(bone(a[0], a[1], b[0], b[1], thick, thick) for a, b in pairwise(path))
    tubes += (bone(-0.58, 0.5, 0.0, 0.5, thick, thick),)
    pieces.append(Piece(tubes, 0, 0, relief=0.4))
    pieces.append(piece(bone(-0.38, -0.32, -0.12, -0.32, 0.06, 0.04), 3, 1))
    pieces.append(
        piece(limb(points((0.35, -0.25), (0.33, -0.5), (0.5, -0.55)), np.full(3, thick)), 4, 1)
    )
    return Figure(
        tuple(pieces),
        ("metal", "skin"),
        (dice.pick(("loud", "dark", "blue")), "dark"),
        1.3,
        dice.chance(0.5),
        0.5,
    )


def tool(dice: Dice) -> Figure:
    """A handled thing: knife, spoon, brush, racket, guitar, shoe-like lump on a stick."""
    half = dice.uniform(0.04, 0.1)
    head = blob(dice, 0.1, 4) * (dice.uniform(0.12, 0.4), dice.uniform(0.3, 0.5)) + (0, -0.5)
    pieces = (
        piece(bone(0, -0.2, 0, 1.0, half, half * dice.uniform(0.7, 1.5)), 1, 1, relief=0.9),
        piece(head.astype(np.float32), 0, 0, relief=0.6),
    )
    return Figure(
        pieces,
        ("metal", "bark"),
        (dice.pick(("grey", "any")), dice.pick(("brown", "dark"))),
        1.0,
        dice.chance(0.3),
    )


def basket(dice: Dice) -> Figure:
    """A basket, pot or bag with what sticks out of it."""
    pieces = []
    for part in range(1, dice.integer(2, 7)):
        x = dice.uniform(-0.55, 0.55)
        if dice.chance(0.5):
            stem = wander(dice, x * 0.6, 0.1, -1.57 + x * 0.6, dice.uniform(0.5, 1.1), 0.6)
            pieces.append(piece(limb(stem, np.linspace(0.08, 0.03, 12)), part, 2))
        else:
            shape = blob(dice, 0.15) * dice.uniform(0.2, 0.4) + (x, -0.1)
            pieces.append(piece(shape.astype(np.float32), part, 1 + part % 2, relief=0.9))
    low = dice.uniform(0.45, 0.8)
    pieces.append(piece(points((-0.8, 0), (0.8, 0), (low, 1), (-low, 1)), 0, 0, relief=0.8))
    pieces.append(piece(rounded(0, 0.03, 0.86, 0.09, 6), 0, 0, tone=1.1, relief=0.5))
    hues = (dice.pick(("brown", "brick", "any")), "warm", "foliage")
    return Figure(
        tuple(pieces), (dice.pick(("cloth", "wall", "hide")), "skin", "foliage"), hues, 0.9
    )


def rosette(dice: Dice) -> Figure:
    """A clock, dial, hub or window rose: discs in discs with spokes."""
    spokes = dice.integer(3, 12)
    pieces = [
        piece(ellipse(0, 0, 1, 1), relief=0.4),
        piece(ellipse(0, 0, 0.82, 0.82), 1, 1, relief=0.1),
    ]
    arms = []
    for k in range(spokes):
        angle = 2 * math.pi * k / spokes
        arms.append(bone(0, 0, 0.75 * math.cos(angle), 0.75 * math.sin(angle), 0.04, 0.03))
    pieces.append(Piece(tuple(arms), 2 if dice.chance(0.5) else 1, 0, relief=0.3))
    return Figure(
        tuple(pieces),
        ("metal", "plain"),
        (dice.pick(("dark", "brown", "grey")), "pale"),
        1.0,
        dice.chance(0.3),
    )


HOUSEHOLD = (window, shelf, screen, sofa, plate, umbrella, bicycle, tool, basket, rosette)
