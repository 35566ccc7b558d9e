"""Staging: ways to fill a stage with figures, back to front."""

import math
from collections.abc import Sequence

from pipelines.train.scenes.actor import Place, put
from pipelines.train.scenes.backdrop import Setting
from pipelines.train.scenes.built import fence
from pipelines.train.scenes.canvas import Canvas
from pipelines.train.scenes.dice import Dice
from pipelines.train.scenes.figure import Maker
from pipelines.train.scenes.living import person
from pipelines.train.scenes.plants import branch, bush, flower, leaf, tuft
from pipelines.train.scenes.shapes import lump, strip


def tilt(dice: Dice, loose: float) -> float:
    """An angle in radians: nearly upright, or any with probability `loose`."""
    return dice.uniform(-math.pi, math.pi) if dice.chance(loose) else dice.normal(0, 0.08)


def crowd(
    canvas: Canvas, dice: Dice, setting: Setting, makers: Sequence[Maker], count: int, tall: float
) -> None:
    """Figures that stand on the ground, smaller and hazier toward the horizon.

    `tall` is the half height in frames of a figure at the lower edge. Neighbours of the same
    kind may share a group and looks.
    """
    size = canvas.size_px
    depths = sorted(dice.uniform(0, 1) ** 1.4 for _ in range(count))
    maker = dice.pick(makers)
    group, looks = canvas.new_group(), None
    for depth in depths:
        if not dice.chance(0.45):
            maker, group, looks = dice.pick(makers), canvas.new_group(), None
        foot = setting.horizon_px + depth * (size * 1.02 - setting.horizon_px)
        half = size * tall * (0.12 + 0.88 * depth) * dice.log_uniform(0.7, 1.4)
        place = Place(
            dice.uniform(-0.05, 1.05) * size,
            foot - half,
            half,
            dice.normal(0, 0.04),
            haze=0.5 * (1 - depth) ** 2 * dice.uniform(0, 1),
            cast="mirror" if setting.mirrors else "ground",
        )
        looks = put(canvas, dice, maker(dice), place, group, looks if dice.chance(0.5) else None)


def scatter(
    canvas: Canvas,
    dice: Dice,
    makers: Sequence[Maker],
    count: int,
    low: float,
    high: float,
    loose: float = 0.5,
) -> None:
    """Figures anywhere, with half sizes by a power law between `low` and `high` frames."""
    size = canvas.size_px
    power = dice.uniform(0.8, 2.0)
    halves = [
        low * (1 - dice.uniform(0, 1) * (1 - (low / high) ** power)) ** (-1 / power)
        for _ in range(count)
    ]
    if dice.chance(0.7):
        halves.sort(reverse=True)
    group = canvas.new_group()
    for half in halves:
        if dice.chance(0.75):
            group = canvas.new_group()
        place = Place(
            dice.uniform(-0.05, 1.05) * size,
            dice.uniform(-0.05, 1.05) * size,
            half * size,
            tilt(dice, loose),
        )
        put(canvas, dice, dice.pick(makers)(dice), place, group)


def heroes(
    canvas: Canvas, dice: Dice, makers: Sequence[Maker], count: int, low: float, high: float
) -> None:
    """One to three large subjects; those side by side, and what they hold, are a group."""
    size = canvas.size_px
    group = canvas.new_group()
    start = dice.uniform(0.3, 0.7) if count == 1 else dice.uniform(0.1, 0.3)
    maker = dice.pick(makers)
    for k in range(count):
        half = dice.uniform(low, high) / count**0.5
        x = start + k * dice.uniform(0.5, 0.8) / count + dice.normal(0, 0.05)
        y = dice.uniform(0.4, 0.65)
        cast = "drop" if dice.chance(0.6) else "none"
        put(
            canvas,
            dice,
            maker(dice),
            Place(x * size, y * size, half * size, tilt(dice, 0.12), cast=cast),
            group,
        )
        if dice.chance(0.2):
            side = dice.uniform(-0.7, 0.7)
            near = Place(
                (x + side * half) * size,
                (y + side * 0.4 * half) * size,
                half * size * dice.uniform(0.25, 0.6),
                tilt(dice, 0.2),
            )
            put(canvas, dice, dice.pick(makers)(dice), near, group)
        if dice.chance(0.4):
            maker = dice.pick(makers)


def foreground(canvas: Canvas, dice: Dice) -> None:
    """Out-of-focus things before all else, mostly from an edge."""
    size = canvas.size_px
    for _ in range(dice.integer(1, 3)):
        maker = dice.pick((leaf, branch, tuft, lump, bush, fence, person, flower, strip))
        edge = dice.uniform(0, 1)
        x, y = dice.pick(((-0.05, edge), (1.05, edge), (edge, 1.05), (edge, -0.05)))
        place = Place(
            x * size,
            y * size,
            dice.uniform(0.15, 0.5) * size,
            tilt(dice, 0.4),
            cast="none",
            blur_px=dice.log_uniform(1, 6) * canvas.unit_px,
        )
        put(canvas, dice, maker(dice), place, canvas.new_group())


def row(canvas: Canvas, dice: Dice, maker: Maker, count: int, foot: float, half: float) -> None:
    """The same thing again and again along a line, one group."""
    size = canvas.size_px
    group, looks = canvas.new_group(), None
    shared = dice.chance(0.6)
    start, step = dice.uniform(-0.1, 0.3), dice.uniform(0.8, 2.0) * half
    figure = maker(dice)
    for k in range(count):
        x = start + k * step
        if x > 1.1:
            break
        place = Place(
            x * size,
            (foot - half) * size,
            half * size * dice.uniform(0.92, 1.08),
            dice.normal(0, 0.03),
            cast="ground",
        )
        looks = put(
            canvas,
            dice,
            figure if dice.chance(0.7) else maker(dice),
            place,
            group,
            looks if shared else None,
        )
