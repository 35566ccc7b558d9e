"""Figures of no kind: blobs, polygons, strips and compounds, so that no kind is memorised."""

import numpy as np

from pipelines.train.scenes.dice import Dice
from pipelines.train.scenes.figure import Figure, Piece, piece
from pipelines.train.scenes.outlines import (
    Outline,
    blob,
    bone,
    ellipse,
    limb,
    polygon,
    rounded,
    star,
    wander,
)


def _outline(dice: Dice) -> Outline:
    draw = dice.uniform(0, 1)
    if draw < 0.45:
        return blob(dice, dice.uniform(0.05, 0.5), dice.integer(3, 10), dice.uniform(0.8, 1.6))
    if draw < 0.6:
        return ellipse(0, 0, 1, dice.uniform(0.3, 1))
    if draw < 0.75:
        return rounded(0, 0, 1, dice.uniform(0.3, 1), dice.uniform(3, 12))
    if draw < 0.92:
        return polygon(dice, dice.integer(3, 8))
    return star(dice, dice.integer(4, 10), dice.uniform(0.3, 0.8))


def lump(dice: Dice) -> Figure:
    """A single shape with any texture, sometimes with patches or a hole."""
    outline = _outline(dice)
    outlines: tuple[Outline, ...] = (outline,)
    if dice.chance(0.08):
        outlines = (outline, (outline * dice.uniform(0.3, 0.7)).astype(np.float32))
    rag = dice.uniform(0.1, 0.8) if dice.chance(0.2) else 0.0
    pieces = [Piece(outlines, 0, 0, relief=dice.uniform(0, 1), rag=rag, hollow=True)]
    if dice.chance(0.4) and len(outlines) == 1:
        for part in range(dice.integer(1, 3)):
            patch = _outline(dice) * dice.uniform(0.15, 0.45) + dice.arrays.uniform(-0.35, 0.35, 2)
            pieces.append(
                piece(patch.astype(np.float32), part + 1, 1 + part % 2, relief=dice.uniform(0, 0.6))
            )
    return Figure(
        tuple(pieces), ("any", "any", "any"), ("any", "any", "any"), dice.log_uniform(0.6, 1.6)
    )


def rock(dice: Dice) -> Figure:
    """A stone."""
    outline = blob(dice, 0.2, 9, 1.1)
    return Figure(
        (piece(outline, relief=0.9),),
        ("rock",),
        (dice.pick(("grey", "brown", "sand", "dark")),),
        dice.uniform(0.9, 2.0),
    )


def strip(dice: Dice) -> Figure:
    """A long curved band: rope, snake, cable, ribbon, path."""
    path = wander(dice, 0, 0, dice.uniform(0, 6.3), 3.0, dice.uniform(0.3, 2.6), 24)
    path -= (path.max(0) + path.min(0)) / 2
    path /= np.abs(path).max()
    width = dice.log_uniform(0.02, 0.16)
    outline = limb(path, np.linspace(width, width * dice.uniform(0.3, 1), 24))
    return Figure(
        (piece(outline, relief=dice.uniform(0.2, 1)),), ("any",), ("any",), 1.0, True, 0.7
    )


def compound(dice: Dice) -> Figure:
    """Two to six blobs and limbs joined about a core, each a part: an unknown thing."""
    pieces = []
    same = dice.chance(0.5)
    for part in range(1, dice.integer(2, 6)):
        angle = dice.uniform(0, 6.3)
        x, y = 0.5 * np.cos(angle), 0.5 * np.sin(angle)
        skin = 0 if same else dice.integer(0, 2)
        if dice.chance(0.5):
            reach = dice.uniform(1.4, 2)
            shape = bone(
                0,
                0,
                x * reach,
                y * reach,
                dice.uniform(0.06, 0.2),
                dice.uniform(0.03, 0.2),
                dice.uniform(-0.3, 0.3),
            )
        else:
            shape = (_outline(dice) * dice.uniform(0.2, 0.45) + (x, y)).astype(np.float32)
        pieces.append(piece(shape, part, skin, relief=0.7))
    pieces.insert(
        dice.integer(0, len(pieces)),
        piece((_outline(dice) * 0.55).astype(np.float32), 0, 0, relief=0.8),
    )
    return Figure(
        tuple(pieces),
        ("any", "any", "any"),
        ("any", "any", "any"),
        dice.log_uniform(0.7, 1.4),
        dice.chance(0.3),
    )


SHAPES = (lump, lump, lump, rock, strip, compound)
