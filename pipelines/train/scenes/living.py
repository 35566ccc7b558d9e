"""Figures of the living: animals, people and faces, as unions of ellipses and tapered limbs."""

import math

import numpy as np

from pipelines.train.scenes.dice import Dice
from pipelines.train.scenes.figure import Figure, Piece, piece
from pipelines.train.scenes.outlines import blob, bone, ellipse, limb, points, wander

_COATS = ("brown", "grey", "dry", "sand", "dark", "pale", "skin", "warm")
_TAPER = np.linspace(1, 0.3, 12)


def quadruped(dice: Dice) -> Figure:
    """A four-legged animal from the side: legs, tail, torso, neck, head, ear, eye."""
    girth = dice.uniform(0.2, 0.42)
    reach, drop = dice.uniform(0.4, 0.62), dice.uniform(-0.2, 0.1)
    leg = dice.uniform(0.06, 0.12)
    neck_x, neck_y = reach + dice.uniform(0.05, 0.3), drop - dice.uniform(-0.1, 0.6)
    pieces = []
    for part, x in ((1, -0.8), (2, 0.72)):
        foot = x * reach + dice.uniform(-0.2, 0.2)
        pieces.append(
            piece(bone(x * reach, drop, foot, 0.97, leg * 1.5, leg * 0.7), part, tone=0.65)
        )
    tail = wander(
        dice, -reach, drop - girth * 0.4, dice.uniform(1.8, 4.2), dice.uniform(0.25, 0.7), 1.0
    )
    pieces.append(piece(limb(tail, leg * dice.uniform(0.4, 0.9) * _TAPER), 3))
    pieces.append(
        piece(bone(reach * 0.8, drop - girth * 0.2, neck_x, neck_y, girth * 0.75, girth * 0.4), 0)
    )
    pieces.append(
        piece(bone(-reach * 0.85, drop, reach * 0.85, drop, girth, girth * 1.05), 0, relief=0.8)
    )
    for part, x in ((4, -0.95), (5, 0.85)):
        foot = x * reach + dice.uniform(-0.25, 0.25)
        pieces.append(
            piece(bone(x * reach * 0.9, drop + 0.05, foot, 1.0, leg * 1.9, leg * 0.7, 0.06), part)
        )
    pieces += _beast_head(dice, neck_x, neck_y, girth)
    rag = dice.uniform(0.1, 0.3) if dice.chance(0.4) else 0.0
    pieces = [Piece(p.outlines, p.part, p.skin, p.tone, p.relief, rag, p.each) for p in pieces]
    coat = dice.pick(_COATS)
    return Figure(
        tuple(pieces),
        ("fur", dice.pick(("fur", "hide"))),
        (coat, dice.pick((coat, "dark", "pale"))),
        1.2,
        whole=dice.chance(0.55),
    )


def _beast_head(dice: Dice, x: float, y: float, girth: float) -> list[Piece]:
    size = girth * dice.uniform(0.55, 0.9)
    tilt = dice.uniform(-0.3, 0.7)
    ear = points(
        (x - size * 0.6, y - size * 0.3),
        (x - size * 0.7, y - size * 1.5),
        (x + size * 0.1, y - size * 0.6),
    )
    nose_x, nose_y = x + size * 1.3 * math.cos(tilt), y + size * 1.3 * math.sin(tilt)
    pieces = [
        piece(ear, 7, 1, tone=0.85),
        piece(
            bone(x, y, nose_x, nose_y, size * 0.85, size * 0.45), 6, dice.integer(0, 1), relief=0.7
        ),
        piece(
            ellipse(x + size * 0.35, y - size * 0.15, size * 0.13, size * 0.13),
            8,
            1,
            tone=0.12,
            relief=0.1,
        ),
    ]
    if dice.chance(0.3):
        horn = wander(dice, x - size * 0.2, y - size * 0.5, -1.5, size * 2, 1.2)
        pieces.insert(0, piece(limb(horn, size * 0.16 * _TAPER), 9, 1, tone=1.2))
    return pieces


def bird(dice: Dice) -> Figure:
    """A perched or flying bird: tail, body, head, beak, wing, legs."""
    pose = dice.uniform(-0.9, 0.3)
    cos, sin = math.cos(pose), math.sin(pose)
    head_x, head_y = 0.55 * cos, 0.55 * sin - 0.1
    fat = dice.uniform(0.22, 0.4)
    pieces = [
        piece(
            bone(-0.3 * cos, -0.3 * sin, -cos, -sin + 0.1, fat * 0.5, fat * dice.uniform(0.2, 0.5)),
            1,
            1,
        ),
        piece(ellipse(0, 0, 0.55, fat, pose), 0, 0, relief=0.8),
        piece(
            points(
                (head_x + 0.15, head_y - 0.06),
                (head_x + 0.15 + dice.uniform(0.15, 0.4), head_y + 0.05),
                (head_x + 0.15, head_y + 0.09),
            ),
            3,
            2,
        ),
        piece(ellipse(head_x, head_y, fat * 0.65, fat * 0.6), 2, dice.integer(0, 1), relief=0.8),
        piece(ellipse(head_x + 0.07, head_y - 0.04, 0.035, 0.035), 5, 2, tone=0.1),
    ]
    if dice.chance(0.35):
        for part, lift in ((4, -1.0), (6, dice.uniform(-0.9, 0.9))):
            wing = points((-0.2, 0.05), (-0.35, lift * 0.9), (-0.05, lift), (0.25, 0.0))
            pieces.insert(part // 6 * len(pieces), piece(wing, part, 1))
    else:
        pieces.append(
            piece(ellipse(-0.12 * cos, -0.1 * sin + 0.04, 0.42, fat * 0.55, pose - 0.1), 4, 1)
        )
        for part, x in ((7, -0.05), (8, 0.1)):
            pieces.insert(
                0, piece(bone(x, fat * 0.6, x + 0.03, 0.85, 0.03, 0.02), part, 2, relief=0.1)
            )
    hue = dice.pick(("brown", "grey", "dark", "pale", "warm", "blue", "loud"))
    return Figure(
        tuple(pieces),
        ("fur", "fur", "skin"),
        (hue, dice.pick((hue, "dark", "grey")), "warm"),
        1.2,
        whole=dice.chance(0.4),
    )


def fish(dice: Dice) -> Figure:
    """A fish from the side: fins, body, eye."""
    fat = dice.uniform(0.25, 0.5)
    pieces = (
        piece(points((-0.5, 0), (-1, -0.4), (-0.85, 0), (-1, 0.4)), 1, 1),
        piece(
            points((-0.3, -fat * 0.7), (0.1, -fat - dice.uniform(0.1, 0.4)), (0.35, -fat * 0.6)),
            2,
            1,
        ),
        piece(points((-0.2, fat * 0.6), (-0.1, fat + 0.25), (0.2, fat * 0.7)), 3, 1),
        piece(ellipse(0.15, 0, 0.75, fat), 0, 0, relief=0.7),
        piece(ellipse(0.6, -fat * 0.2, 0.06, 0.06), 4, 1, tone=0.15),
    )
    hue = dice.pick(("grey", "warm", "loud", "blue", "dry", "brown"))
    return Figure(pieces, ("hide", "fur"), (hue, hue), 1.6, whole=dice.chance(0.4), shadow=0.3)


def person(dice: Dice) -> Figure:
    """A clothed figure, standing or walking: legs, arms, torso, head, hair, shoes, bag."""
    wide, lean = dice.uniform(0.15, 0.23), dice.uniform(-0.08, 0.08)
    hip, neck = dice.uniform(-0.05, 0.1), -0.62
    pieces = _legs(dice, wide, hip)
    shoulder = neck + 0.1
    pieces.append(_arm(dice, -wide, shoulder, 3, -1.0))
    pieces.append(piece(bone(lean, neck, lean, neck + 0.15, 0.06, 0.07), 5, 2))
    torso = points(
        (lean - wide, shoulder),
        (lean - 0.06, neck + 0.04),
        (lean + 0.06, neck + 0.04),
        (lean + wide, shoulder),
        (wide * 0.85, hip + 0.1),
        (-wide * 0.85, hip + 0.1),
    )
    pieces.append(piece(torso, 0, 0, relief=0.7))
    pieces.append(_arm(dice, wide, shoulder, 4, 1.0))
    head = dice.uniform(0.1, 0.14)
    top = neck - head
    pieces.append(piece(ellipse(lean, top - 0.03, head * 1.05, head * 1.15), 8, 3, relief=0.6))
    if dice.chance(0.75):
        face = ellipse(lean + dice.uniform(-0.04, 0.04), top + 0.03, head * 0.8, head)
        pieces.append(piece(face, 5, 2))
    if dice.chance(0.25):
        bag = blob(dice, 0.2) * 0.16 + (wide * dice.sign(), hip)
        pieces.append(piece(bag.astype(np.float32), 9, 4))
    trousers, hair = (
        dice.pick(("blue", "dark", "any", "brown")),
        dice.pick(("dark", "brown", "dry")),
    )
    hues = ("any", trousers, "skin", hair, "any")
    dress = ("cloth", "cloth", "skin", "fur", "cloth")
    return Figure(tuple(pieces), dress, hues, 0.85, whole=dice.chance(0.25))


def _legs(dice: Dice, wide: float, hip: float) -> list[Piece]:
    stride = dice.uniform(0.0, 0.28)
    pieces = []
    for part, side in ((1, -1), (2, 1)):
        foot = side * (0.08 + stride) + dice.uniform(-0.05, 0.05)
        knee = dice.uniform(-0.06, 0.06)
        leg = bone(side * wide * 0.45, hip, foot, 0.93, wide * 0.55, wide * 0.3, knee)
        pieces.append(piece(leg, part, 1))
        pieces.append(piece(ellipse(foot + 0.04, 0.96, 0.1, 0.045), part + 5, 3, tone=0.6))
    if dice.chance(0.2):
        waist, hem = wide * 0.8, wide * 1.8
        skirt = points((-waist, hip - 0.1), (waist, hip - 0.1), (hem, 0.5), (-hem, 0.5))
        pieces.append(piece(skirt, 1, 1))
    return pieces


def _arm(dice: Dice, x: float, y: float, part: int, side: float) -> Piece:
    elbow_x, elbow_y = x + side * dice.uniform(0.02, 0.22), y + dice.uniform(0.15, 0.3)
    hand_x, hand_y = elbow_x + dice.uniform(-0.25, 0.25), elbow_y + dice.uniform(-0.3, 0.3)
    path = np.array([(x, y), (x, y + 0.04), (elbow_x, elbow_y), (hand_x, hand_y)])
    arm = np.stack(
        [np.interp(np.linspace(0, 3, 10), range(4), path[:, axis]) for axis in (0, 1)], 1
    )
    return piece(limb(arm, np.linspace(0.075, 0.045, 10)), part, 0)


def portrait(dice: Dice) -> Figure:
    """Head and shoulders: hair, neck, clothes, face, eyes, brows, nose, mouth, sometimes a hat."""
    wide = dice.uniform(0.32, 0.42)
    turn = dice.uniform(-0.1, 0.1)
    long_hair = dice.uniform(0.3, 1.0)
    pieces = [
        piece(
            blob(dice, 0.08) * (wide * 1.3, wide * 1.3 + long_hair * 0.4)
            + (0, -0.3 + long_hair * 0.2),
            1,
            1,
            rag=0.2,
        ),
        piece(bone(0, 0.1, 0, 0.6, wide * 0.5, wide * 0.6), 2, 0, tone=0.85),
        piece(ellipse(0, 1.05, dice.uniform(0.8, 1.1), 0.55), 3, 2, relief=0.8),
        piece(ellipse(turn, -0.2, wide, wide * 1.35), 2, 0, relief=0.6),
    ]
    eye_y = -0.25
    for side in (-1, 1):
        x = turn * 1.4 + side * wide * 0.42
        pieces.append(
            piece(ellipse(x, eye_y, wide * 0.19, wide * 0.09), 4 + (side > 0), 3, relief=0.1)
        )
        pieces.append(
            piece(ellipse(x, eye_y, wide * 0.08, wide * 0.08), 4 + (side > 0), 3, tone=0.12)
        )
        pieces.append(
            piece(bone(x - wide * 0.2, eye_y - 0.1, x + wide * 0.2, eye_y - 0.1, 0.02, 0.02), 2, 1)
        )
    pieces.append(
        piece(
            bone(turn * 1.6, eye_y + 0.02, turn * 1.8, 0.0, 0.03, 0.06), 2, 0, tone=0.93, relief=1.0
        )
    )
    pieces.append(
        piece(
            ellipse(turn * 1.5, 0.13, wide * 0.32, wide * dice.uniform(0.07, 0.16)), 6, 4, tone=0.8
        )
    )
    top = blob(dice, 0.12) * (wide * 1.15, wide * 0.55) + (turn, -0.2 - wide * 1.15)
    hat = dice.chance(0.3)
    pieces.append(piece(top, 7 if hat else 1, 2 if hat else 1, rag=0.0 if hat else 0.2))
    hair = dice.pick(("dark", "brown", "dry", "dark", "grey"))
    return Figure(
        tuple(pieces),
        ("skin", "fur", "cloth", "skin", "skin"),
        ("skin", hair, "any", "pale", "brick"),
        1.0,
        shadow=0.6,
    )


def butterfly(dice: Dice) -> Figure:
    """Four wings about a body, spotted."""
    pieces = []
    for side in (-1, 1):
        for part, (x, y, rx, ry, tilt) in enumerate(
            ((0.5, -0.4, 0.55, 0.36, -0.6), (0.4, 0.4, 0.4, 0.3, 0.7))
        ):
            wing = ellipse(side * x, y, rx, ry * dice.uniform(0.9, 1.1), side * tilt)
            pieces.append(piece(wing, 1 + part + (2 if side > 0 else 0), part, relief=0.2))
    pieces.append(piece(bone(0, -0.55, 0, 0.6, 0.07, 0.04), 0, 2))
    return Figure(
        tuple(pieces), ("hide", "hide", "fur"), ("loud", "warm", "dark"), 1.0, dice.chance(0.4), 0.4
    )


LIVING = (quadruped, quadruped, bird, fish, person, person, butterfly)
