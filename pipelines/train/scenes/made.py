"""Figures of made things: boxes, vessels, balls, rings, chairs and cloth."""

import math

import numpy as np

from pipelines.train.scenes.dice import Dice
from pipelines.train.scenes.figure import HUES, Figure, Piece, piece
from pipelines.train.scenes.outlines import (
    Outline,
    bone,
    ellipse,
    limb,
    points,
    profile,
    rounded,
    star,
)


def box(dice: Dice) -> Figure:
    """A box in perspective with two or three faces of different shade, each a part."""
    edge = dice.uniform(-0.5, 0.5)
    top, rise_l, rise_r = dice.uniform(-0.8, -0.3), dice.uniform(0.05, 0.4), dice.uniform(0.05, 0.4)
    low = dice.uniform(0.5, 1.0)
    near_top, near_low = (edge, top + 0.25), (edge, low)
    left_top, left_low = (-1.0, top + 0.25 - rise_l), (-1.0, low - rise_l * 0.9)
    right_top, right_low = (1.0, top + 0.25 - rise_r), (1.0, low - rise_r * 0.9)
    back = (-edge, top + 0.25 - rise_l - rise_r)
    skins = (0, 0, 0) if dice.chance(0.7) else (0, 1, 2)
    light, dim = dice.uniform(0.85, 1.0), dice.uniform(0.5, 0.8)
    pieces = [
        piece(points(left_top, near_top, near_low, left_low), 0, skins[0], tone=light, relief=0.0),
        piece(points(near_top, right_top, right_low, near_low), 1, skins[1], tone=dim, relief=0.0),
    ]
    if dice.chance(0.8):
        pieces.append(
            piece(points(left_top, near_top, right_top, back), 2, skins[2], tone=1.15, relief=0.0)
        )
    if dice.chance(0.4):
        label = _inset(points(left_top, near_top, near_low, left_low), dice.uniform(0.3, 0.7))
        pieces.append(piece(label, 3, 3, relief=0.0))
    return Figure(
        tuple(pieces),
        ("wall", "wall", "wall", "plain"),
        (dice.pick(HUES),) * 3 + ("pale",),
        dice.uniform(0.7, 1.5),
    )


def _inset(outline: Outline, share: float) -> Outline:
    centre = outline.mean(0)
    return (centre + (outline - centre) * share).astype(np.float32)


def vessel(dice: Dice) -> Figure:
    """A bottle, vase, jar, cup or lamp: a turned profile with a label, a lid and a handle."""
    neck = dice.uniform(0.15, 0.7)
    body = profile(
        [-1, -0.6, -0.4 + dice.uniform(0, 0.3), 0.5, 0.95, 1.0],
        [
            neck * 0.5,
            neck * 0.55,
            dice.uniform(0.3, 0.6),
            dice.uniform(0.35, 0.6),
            dice.uniform(0.25, 0.5),
            0.25,
        ],
        24,
    )
    pieces = [piece(body, 0, 0, relief=0.9)]
    if dice.chance(0.35):
        handle = points((0.35, -0.3), (0.8, -0.25), (0.85, 0.2), (0.4, 0.4))
        pieces.insert(0, piece(limb(handle, np.full(4, 0.06)), 1, 0))
    if dice.chance(0.5):
        pieces.append(piece(rounded(0, 0.3, 0.36, 0.25, 8), 2, 1, relief=0.3))
    if dice.chance(0.5):
        pieces.append(piece(rounded(0, -0.98, neck * 0.6, 0.1, 6), 3, 2, relief=0.4))
    return Figure(
        tuple(pieces),
        (dice.pick(("metal", "skin", "hide")), "plain", "metal"),
        (dice.pick(HUES), "pale", "any"),
        0.6,
        dice.chance(0.3),
    )


def ball(dice: Dice) -> Figure:
    """A ball or a plate, sometimes with a band."""
    pieces = [
        piece(
            ellipse(0, 0, 1, 1 if dice.chance(0.6) else dice.uniform(0.35, 0.9)), 0, 0, relief=1.0
        )
    ]
    if dice.chance(0.4):
        pieces.append(piece(ellipse(0, 0, 0.6, dice.uniform(0.2, 0.6)), 1, 1, relief=0.5))
    return Figure(tuple(pieces), ("skin", "any"), (dice.pick(HUES), "any"), 1.0, dice.chance(0.4))


def ring(dice: Dice) -> Figure:
    """A ring: a wheel, tyre, wreath or rope, seen at a slant; its hole shows what is behind."""
    squash, hole = dice.uniform(0.4, 1.0), dice.uniform(0.45, 0.85)
    outer, inner = ellipse(0, 0, 1, squash), ellipse(0, 0, hole, squash * hole)
    pieces = [Piece((outer, inner), 0, 0, relief=0.8, hollow=True)]
    if dice.chance(0.4):
        for k in range(dice.integer(2, 5)):
            angle = dice.uniform(0, 0.5) + k * math.pi / 3
            x, y = 0.95 * math.cos(angle), 0.95 * squash * math.sin(angle)
            pieces.append(piece(bone(-x, -y, x, y, 0.03, 0.03), 1, 0))
    return Figure(
        tuple(pieces),
        (dice.pick(("metal", "fur", "skin", "cloth")),),
        (dice.pick(HUES),),
        1.0,
        dice.chance(0.6),
    )


def chair(dice: Dice) -> Figure:
    """A chair or table: legs, seat and back."""
    seat, thick = dice.uniform(-0.1, 0.3), dice.uniform(0.05, 0.12)
    pieces = []
    for k, x in enumerate((-0.6, 0.5, -0.8, 0.8)):
        leg = points(
            (x - 0.05, seat),
            (x + 0.05, seat),
            (x + 0.03, 1 - 0.2 * (k < 2)),
            (x - 0.05, 1 - 0.2 * (k < 2)),
        )
        pieces.append(piece(leg, 1 + k, 0, tone=0.7 + 0.3 * (k > 1), relief=0.2))
    pieces.append(
        piece(
            points(
                (-0.65, seat - 0.15), (0.6, seat - 0.15), (0.9, seat + thick), (-0.9, seat + thick)
            ),
            0,
            1,
            relief=0.2,
        )
    )
    if dice.chance(0.6):
        pieces.insert(0, piece(rounded(0, seat - 0.6, 0.62, 0.5, 6), 5, 1, relief=0.3))
    return Figure(
        tuple(pieces),
        ("bark", dice.pick(("cloth", "bark"))),
        ("brown", dice.pick(("brown", "any"))),
        1.0,
        dice.chance(0.4),
    )


def garment(dice: Dice) -> Figure:
    """A hanging or draped piece of cloth with folds, or a star-shaped ornament."""
    if dice.chance(0.2):
        return Figure(
            (piece(star(dice, dice.integer(4, 9), dice.uniform(0.3, 0.7))),),
            ("metal",),
            (dice.pick(HUES),),
            1.0,
            True,
        )
    hem = [(-0.7 + 1.4 * k / 8, 0.9 + dice.uniform(-0.12, 0.12)) for k in range(9)]
    cloth = points((-0.5, -0.9), *hem, (0.5, -0.9))
    return Figure(
        (piece(cloth, relief=0.4),), ("cloth",), (dice.pick(HUES),), dice.uniform(0.7, 1.4), True
    )


MADE = (box, box, vessel, vessel, ball, ring, chair, garment)
