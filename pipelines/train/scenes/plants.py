"""Figures of plants: trees, bushes, flowers, leaves, branches, fruit, mushrooms and grass."""

import math

import numpy as np

from pipelines.train.scenes.dice import Dice
from pipelines.train.scenes.figure import Figure, Piece, piece
from pipelines.train.scenes.outlines import (
    Outline,
    blob,
    bone,
    ellipse,
    limb,
    points,
    profile,
    ragged,
    wander,
)


def tree(dice: Dice) -> Figure:
    """A trunk and a crown with a ragged border; the crown is one part however textured."""
    crown = blob(dice, dice.uniform(0.12, 0.3), 10, 0.9) * (
        dice.uniform(0.5, 0.95),
        dice.uniform(0.5, 0.7),
    )
    crown[:, 1] -= 0.35
    trunk = dice.uniform(0.05, 0.12)
    pieces = [
        piece(
            bone(
                dice.uniform(-0.1, 0.1), -0.3, 0, 1.0, trunk * 0.6, trunk, dice.uniform(-0.1, 0.1)
            ),
            1,
            1,
        )
    ]
    for _ in range(dice.integer(0, 4)):
        path = wander(dice, 0, dice.uniform(-0.3, 0.2), dice.uniform(-2.6, -0.5), 0.7, 0.8)
        pieces.append(piece(limb(path, np.linspace(0.05, 0.015, 12)), 1, 1))
    pieces.append(piece(crown, 0, 0, relief=0.85, rag=dice.uniform(0.3, 1.0)))
    hue = dice.weighted(("foliage", "dry", "warm", "dark"), (8, 2, 1, 1))
    return Figure(
        tuple(pieces),
        ("foliage", "bark"),
        (hue, dice.pick(("brown", "grey", "dark"))),
        1.0,
        dice.chance(0.5),
    )


def conifer(dice: Dice) -> Figure:
    """A tall ragged cone on a short trunk."""
    layers = dice.integer(4, 9)
    spread = dice.uniform(0.25, 0.5)
    heights, widths = [-1.0], [0.02]
    for i in range(1, layers + 1):
        base = spread * i / layers
        heights += [-1 + 1.8 * i / layers, -1 + 1.8 * i / layers + 0.02]
        widths += [base, base * 0.7]
    crown = ragged(profile(heights, widths, 40), dice, 0.05)
    pieces = (
        piece(bone(0, 0.5, 0, 1, 0.05, 0.07), 1, 1),
        piece(crown, 0, 0, relief=0.7, rag=dice.uniform(0.2, 0.7)),
    )
    return Figure(pieces, ("foliage", "bark"), ("foliage", "brown"), 0.6, dice.chance(0.6))


def bare_tree(dice: Dice) -> Figure:
    """A trunk that forks into crooked branches, one part."""
    outlines = []
    ends = [(0.0, 1.0, -1.57, 0.75, dice.uniform(0.06, 0.12))]
    for _ in range(3):
        following = []
        for x, y, angle, length, width in ends:
            path = wander(dice, x, y, angle, length, 0.5)
            outlines.append(limb(path, np.linspace(width, width * 0.6, 12)))
            for side in (-1, 1):
                heading = angle + side * dice.uniform(0.2, 0.8)
                following.append(
                    (
                        path[-1, 0],
                        path[-1, 1],
                        heading,
                        length * dice.uniform(0.55, 0.8),
                        width * 0.6,
                    )
                )
        ends = following
    pieces = (Piece(tuple(outlines), relief=0.6),)
    return Figure(pieces, ("bark",), (dice.pick(("dark", "brown", "grey")),), 1.0, True, 0.5)


def bush(dice: Dice) -> Figure:
    """A ragged heap of leaves, sometimes with a few blossoms that are no parts."""
    heap = blob(dice, 0.2, 10, 0.9)
    pieces = [piece(heap, 0, 0, relief=0.9, rag=dice.uniform(0.3, 1.0))]
    if dice.chance(0.3):
        spots = tuple(
            ellipse(dice.normal(0, 0.4), dice.normal(0, 0.4), 0.06, 0.06, count=8)
            for _ in range(dice.integer(4, 25))
        )
        pieces.append(Piece(spots, 0, 1))
    return Figure(tuple(pieces), ("foliage", "plain"), ("foliage", "loud"), dice.uniform(0.9, 2.0))


def flower(dice: Dice) -> Figure:
    """Petals about a heart, on a stem with leaves."""
    petals = dice.integer(4, 14)
    long = dice.uniform(0.3, 0.5)
    wide = dice.uniform(0.5, 1.4) * math.pi * long / petals
    lift = -0.4
    pieces = [
        piece(
            bone(0, lift, dice.uniform(-0.2, 0.2), 1.0, 0.03, 0.035, dice.uniform(-0.15, 0.15)),
            1,
            1,
        )
    ]
    for side in (-1, 1):
        if dice.chance(0.6):
            y = dice.uniform(0.2, 0.7)
            pieces.append(
                piece(
                    ellipse(side * 0.25, y, 0.28, 0.08, side * dice.uniform(-0.8, 0.2)),
                    2 + (side > 0),
                    1,
                )
            )
    squash = dice.uniform(0.45, 1.0)
    for k in range(petals):
        angle = 2 * math.pi * (k + dice.uniform(-0.15, 0.15)) / petals
        x, y = long * 0.8 * math.cos(angle), lift + long * 0.8 * math.sin(angle) * squash
        petal = ellipse(
            x, y, long * 0.75, wide, math.atan2(math.sin(angle) * squash, math.cos(angle))
        )
        pieces.append(piece(petal, 4, 0, tone=dice.uniform(0.85, 1.1)))
    pieces.append(piece(ellipse(0, lift, long * 0.35, long * 0.35 * squash), 5, 2, relief=0.8))
    return Figure(
        tuple(pieces),
        ("skin", "skin", "hide"),
        (dice.pick(("loud", "warm", "pale")), "foliage", "warm"),
        0.9,
        dice.chance(0.2),
        0.4,
    )


def leaf(dice: Dice) -> Figure:
    """A leaf with a midrib that divides a lit half from a dim one."""
    half = dice.uniform(0.2, 0.55)
    spine = np.linspace(-1, 1, 16)
    rim = half * np.sin((spine + 1) * math.pi / 2) ** dice.uniform(0.6, 1.3)
    bow = dice.uniform(-0.3, 0.3) * (1 - spine**2)
    upper = np.stack([spine, bow - rim], 1)
    lower = np.stack([spine, bow + rim], 1)[::-1]
    middle = np.stack([spine, bow], 1)
    pieces = (
        piece(np.concatenate([upper, lower]).astype(np.float32), 0, 0),
        piece(
            np.concatenate([middle, lower]).astype(np.float32),
            0,
            0,
            tone=dice.uniform(0.7, 0.95),
            relief=0.2,
        ),
        piece(limb(middle, np.linspace(0.02, 0.006, 16)), 0, 0, tone=1.25, relief=0.0),
    )
    hue = dice.weighted(("foliage", "dry", "warm", "brown"), (6, 2, 2, 1))
    return Figure(pieces, (dice.pick(("skin", "plain", "fur")),), (hue,), 1.5, True)


def branch(dice: Dice) -> Figure:
    """A crooked branch that crosses what is behind it, with leaves or twigs."""
    path = wander(dice, -1, dice.uniform(-0.3, 0.3), dice.uniform(-0.3, 0.3), 2.2, 0.9, 20)
    width = dice.uniform(0.03, 0.12)
    pieces = [piece(limb(path, np.linspace(width, width * 0.4, 20)), 0, 0, relief=0.8)]
    leafy = dice.chance(0.5)
    for _ in range(dice.integer(0, 7)):
        x, y = path[dice.integer(2, 19)]
        angle = dice.uniform(0, 6.3)
        if leafy:
            pieces.append(
                piece(
                    ellipse(
                        x + 0.15 * math.cos(angle), y + 0.15 * math.sin(angle), 0.17, 0.06, angle
                    ),
                    1,
                    1,
                )
            )
        else:
            twig = wander(dice, x, y, angle, 0.6, 0.7)
            pieces.append(piece(limb(twig, np.linspace(width * 0.5, width * 0.15, 12)), 0, 0))
    return Figure(
        tuple(pieces),
        ("bark", "skin"),
        (dice.pick(("brown", "grey", "dark")), "foliage"),
        1.4,
        dice.chance(0.5),
        0.5,
    )


def fruit(dice: Dice) -> Figure:
    """A round fruit with a stalk and sometimes a leaf."""
    body = blob(dice, 0.05, 4) if dice.chance(0.7) else ellipse(0, 0, 1, dice.uniform(0.5, 1))
    pieces = [piece(body, 0, 0, relief=0.9)]
    if dice.chance(0.5):
        pieces.append(piece(bone(0, -0.75, dice.uniform(-0.2, 0.2), -1.15, 0.06, 0.05), 1, 1))
    if dice.chance(0.3):
        pieces.append(piece(ellipse(0.3, -0.95, 0.3, 0.12, dice.uniform(-0.6, 0.3)), 2, 2))
    return Figure(
        tuple(pieces),
        ("skin", "bark", "skin"),
        (dice.pick(("warm", "warm", "foliage", "loud", "dry")), "brown", "foliage"),
        1.0,
        dice.chance(0.4),
    )


def mushroom(dice: Dice) -> Figure:
    """A cap on a stalk."""
    cap = profile([-1, -0.8, -0.2, 0.0], [0.1, 0.6, 1.0, dice.uniform(0.5, 0.95)])
    stalk = bone(
        0, -0.1, dice.uniform(-0.2, 0.2), 1.0, dice.uniform(0.15, 0.3), dice.uniform(0.2, 0.4)
    )
    pieces = (piece(stalk, 1, 1, relief=0.8), piece(cap, 0, 0, relief=0.9))
    return Figure(
        pieces,
        (dice.pick(("skin", "hide")), "bark"),
        (dice.pick(("brown", "warm", "sand")), "sand"),
        0.9,
        dice.chance(0.3),
    )


def tuft(dice: Dice) -> Figure:
    """Blades of grass from one root, one region."""
    blades: list[Outline] = []
    for _ in range(dice.integer(6, 16)):
        path = wander(
            dice,
            dice.uniform(-0.3, 0.3),
            1.0,
            dice.uniform(-2.5, -0.6),
            dice.uniform(1.0, 2.0),
            0.7,
            8,
        )
        blades.append(limb(path, np.linspace(0.035, 0.006, 8)))
    half = len(blades) // 2
    dim, lit = (
        Piece(tuple(blades[:half]), tone=0.75, relief=0.2),
        Piece(tuple(blades[half:]), tone=1.1),
    )
    return Figure((dim, lit), ("skin",), (dice.pick(("foliage", "dry")),), 1.0, True, 0.4)


def cactus(dice: Dice) -> Figure:
    """Thick ribbed columns."""
    pieces = [piece(bone(0, 1, 0, -0.9, 0.22, 0.2), 0, 0, relief=1.0)]
    for side in (-1, 1):
        if dice.chance(0.7):
            y = dice.uniform(-0.2, 0.5)
            path = points(
                (0, y),
                (side * 0.5, y),
                (side * 0.55, y - 0.2),
                (side * 0.55, y - dice.uniform(0.4, 0.8)),
            )
            pieces.append(piece(limb(path, np.full(4, 0.13)), 1 + (side > 0), 0, relief=1.0))
    return Figure(tuple(pieces), (dice.pick(("hide", "fur")),), ("foliage",), 0.9, dice.chance(0.5))


PLANTS = (
    tree,
    tree,
    conifer,
    bare_tree,
    bush,
    bush,
    flower,
    leaf,
    branch,
    fruit,
    mushroom,
    tuft,
    cactus,
)
