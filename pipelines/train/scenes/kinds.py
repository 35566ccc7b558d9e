"""Kinds of scene: each lays out a backdrop and a cast of figures."""

from collections.abc import Callable

from pipelines.train.scenes.actor import Place, put
from pipelines.train.scenes.backdrop import fill, indoors, land, outdoors, plain, sky, terrain
from pipelines.train.scenes.built import BUILT, boat, building, car, fence, lamp, plane, sign
from pipelines.train.scenes.canvas import Canvas
from pipelines.train.scenes.dice import Dice
from pipelines.train.scenes.figure import Maker
from pipelines.train.scenes.household import (
    HOUSEHOLD,
    basket,
    bicycle,
    plate,
    screen,
    shelf,
    sofa,
    tool,
    umbrella,
    window,
)
from pipelines.train.scenes.living import LIVING, bird, butterfly, fish, person, portrait, quadruped
from pipelines.train.scenes.looks import make_look
from pipelines.train.scenes.made import MADE, ball, box, chair, vessel
from pipelines.train.scenes.palette import colour
from pipelines.train.scenes.plants import (
    PLANTS,
    bare_tree,
    branch,
    bush,
    cactus,
    conifer,
    flower,
    fruit,
    leaf,
    mushroom,
    tree,
    tuft,
)
from pipelines.train.scenes.shapes import SHAPES, lump, rock
from pipelines.train.scenes.staging import crowd, foreground, heroes, row, scatter, tilt

ANYTHING: tuple[Maker, ...] = (
    *LIVING,
    *PLANTS,
    *MADE,
    *BUILT,
    *HOUSEHOLD,
    *SHAPES,
    *SHAPES,
    *SHAPES,
)


def landscape(canvas: Canvas, dice: Dice) -> None:
    """A wide view with trees, rocks, beasts and buildings on receding ground."""
    setting = outdoors(canvas, dice)
    makers = dice.pick(
        (
            (tree, bush, conifer, rock),
            (conifer, conifer, tree),
            (quadruped, quadruped, tree, rock),
            (tree, building, bush, fence),
            (bare_tree, rock, tuft),
            (cactus, rock, bush),
            (boat, rock, bird),
            (person, tree, quadruped, bush),
            (*PLANTS, *LIVING),
        )
    )
    crowd(canvas, dice, setting, makers, dice.integer(2, 14), dice.log_uniform(0.1, 0.45))
    if dice.chance(0.3):
        scatter(canvas, dice, (bird, plane), dice.integer(1, 5), 0.02, 0.08, 0.1)


def street(canvas: Canvas, dice: Dice) -> None:
    """Buildings along a road with vehicles, people, signs and poles."""
    setting = outdoors(canvas, dice, "land")
    size = canvas.size_px
    x = dice.uniform(-0.2, 0.1)
    while x < 1.1:
        half = dice.uniform(0.15, 0.5)
        wide = dice.uniform(0.1, 0.3)
        group = canvas.new_group()
        figure = building(dice)
        place = Place(
            (x + wide) * size,
            setting.horizon_px - half * size + 0.04 * size,
            half * size,
            cast="ground",
        )
        put(canvas, dice, figure, place, group)
        x += half * figure.aspect * dice.uniform(1.2, 2.4)
    makers = (car, car, person, person, lamp, sign, tree, bush, fence, bicycle, umbrella)
    crowd(canvas, dice, setting, makers, dice.integer(3, 14), dice.log_uniform(0.12, 0.4))


def room(canvas: Canvas, dice: Dice) -> None:
    """Furniture, vessels and people before a wall, pictures on it."""
    setting = indoors(canvas, dice)
    size = canvas.size_px
    for _ in range(dice.weighted((0, 1, 2, 3), (4, 3, 2, 1))):
        half = dice.uniform(0.05, 0.2)
        place = Place(
            dice.uniform(0, 1) * size,
            dice.uniform(0.1, 0.5) * setting.horizon_px * 1.6,
            half * size,
        )
        put(
            canvas,
            dice,
            dice.pick((sign, window, window, lump, shelf))(dice),
            place,
            canvas.new_group(),
        )
    makers = dice.pick(
        (
            (vessel, fruit, ball, box),
            (chair, person, box, vessel),
            (vessel, flower, lump),
            (sofa, chair, person, vessel, quadruped),
            (shelf, sofa, screen, basket, plate),
            (*MADE, *HOUSEHOLD),
        )
    )
    if dice.chance(0.4):
        half = dice.uniform(0.06, 0.2)
        row(
            canvas,
            dice,
            dice.pick((vessel, fruit, ball, box, mushroom)),
            dice.integer(3, 9),
            setting.horizon_px / size + half * 0.5 + 0.1,
            half,
        )
    crowd(canvas, dice, setting, makers, dice.integer(2, 10), dice.log_uniform(0.12, 0.45))


def closeup(canvas: Canvas, dice: Dice) -> None:
    """One to three large subjects before a soft backdrop."""
    draw = dice.uniform(0, 1)
    if draw < 0.5:
        plain(canvas, dice)
    elif draw < 0.75:
        outdoors(canvas, dice)
    else:
        indoors(canvas, dice)
    if dice.chance(0.5):
        scatter(canvas, dice, ANYTHING, dice.integer(1, 6), 0.08, 0.4)
    if dice.chance(0.65):
        canvas.blur(dice.log_uniform(0.8, 7) * canvas.unit_px)
    makers = dice.pick(
        (
            (*LIVING, portrait),
            (portrait,),
            (person,),
            (quadruped, bird),
            (*PLANTS,),
            (*MADE, *HOUSEHOLD, *BUILT),
            ANYTHING,
        )
    )
    heroes(canvas, dice, makers, dice.weighted((1, 2, 3), (6, 3, 2)), 0.22, 0.75)
    if dice.chance(0.25):
        scatter(canvas, dice, ANYTHING, dice.integer(1, 6), 0.03, 0.15)


def clutter(canvas: Canvas, dice: Dice) -> None:
    """Dead leaves: many overlapping things of all sizes."""
    plain(canvas, dice)
    makers = dice.pick(
        (
            ANYTHING,
            SHAPES,
            (*SHAPES, *MADE),
            (fruit, ball, leaf, rock, lump),
            (leaf, flower, mushroom, bush, rock),
            (vessel, box, ball, sign, lump),
        )
    )
    scatter(canvas, dice, makers, dice.integer(8, 55), 0.025, dice.uniform(0.2, 0.6))


def garden(canvas: Canvas, dice: Dice) -> None:
    """Plants before plants, with an animal or a flower among them."""
    plain(canvas, dice)
    if dice.chance(0.5):
        land(canvas, dice, dice.uniform(0.3, 0.7))
    scatter(
        canvas, dice, (bush, bush, tuft, branch, rock, bare_tree), dice.integer(2, 9), 0.1, 0.6, 0.2
    )
    if dice.chance(0.4):
        canvas.blur(dice.log_uniform(0.6, 4) * canvas.unit_px)
    heroes(
        canvas,
        dice,
        (quadruped, bird, flower, butterfly, mushroom, fish, person),
        dice.integer(1, 3),
        0.15,
        0.45,
    )
    scatter(canvas, dice, (leaf, flower, tuft, branch), dice.integer(0, 10), 0.05, 0.25)


def cluster(canvas: Canvas, dice: Dice) -> None:
    """Repeated things in rows or heaps before a plain backdrop."""
    setting = indoors(canvas, dice) if dice.chance(0.5) else plain(canvas, dice)
    maker = dice.pick(ANYTHING)
    size = canvas.size_px
    if dice.chance(0.5):
        for foot in sorted(dice.uniform(0.3, 1.05) for _ in range(dice.integer(1, 3))):
            row(canvas, dice, maker, dice.integer(3, 10), foot, dice.uniform(0.06, 0.25))
            maker = maker if dice.chance(0.3) else dice.pick(ANYTHING)
        return
    group, looks = canvas.new_group(), None
    x, y, spread = dice.uniform(0.3, 0.7), dice.uniform(0.4, 0.7), dice.uniform(0.1, 0.3)
    half = dice.uniform(0.05, 0.2)
    for _ in range(dice.integer(3, 18)):
        place = Place(
            (x + dice.normal(0, spread)) * size,
            (y + dice.normal(0, spread)) * size,
            half * size * dice.uniform(0.8, 1.2),
            tilt(dice, 0.6),
        )
        looks = put(canvas, dice, maker(dice), place, group, looks if dice.chance(0.7) else None)
    assert setting is not None


def wilds(canvas: Canvas, dice: Dice) -> None:
    """Stretches of terrain with few or no figures: coasts, fields, slopes."""
    setting = terrain(canvas, dice)
    if dice.chance(0.6):
        makers = dice.pick(
            ((rock, rock, tuft), (tree, bush), (quadruped, bird), (person, tree), (cactus, rock))
        )
        crowd(canvas, dice, setting, makers, dice.integer(1, 9), dice.log_uniform(0.08, 0.3))
    if dice.chance(0.25):
        heroes(canvas, dice, (quadruped, bird, person, rock, fish), 1, 0.2, 0.5)


def tabletop(canvas: Canvas, dice: Dice) -> None:
    """A table from above, with dishes, food, tools and papers."""
    dress = dice.pick(("bark", "cloth", "plain", "wall"))
    fill(canvas, make_look(dice, dress, colour(dice), canvas.size_px, drama=0.7))
    makers = (plate, plate, fruit, tool, vessel, ball, basket, lump, screen, leaf)
    scatter(canvas, dice, makers, dice.integer(3, 14), 0.06, dice.uniform(0.3, 0.6), 0.6)


def open_air(canvas: Canvas, dice: Dice) -> None:
    """A few things in the sky or on the sea."""
    if dice.chance(0.5):
        sky(canvas, dice)
        makers: tuple[Maker, ...] = (bird, plane, bird, branch, lump)
    elif dice.chance(0.5):
        outdoors(canvas, dice, "water")
        makers = (boat, bird, rock, person)
    else:
        fill(canvas, make_look(dice, "water", colour(dice, "water"), canvas.size_px))
        makers = (fish, boat, rock, leaf, bird)
    scatter(canvas, dice, makers, dice.integer(1, 9), 0.04, dice.uniform(0.1, 0.5), 0.1)


KINDS: tuple[tuple[Callable[[Canvas, Dice], None], float], ...] = (
    (landscape, 0.2),
    (street, 0.09),
    (room, 0.13),
    (closeup, 0.25),
    (clutter, 0.13),
    (garden, 0.09),
    (cluster, 0.07),
    (open_air, 0.04),
    (wilds, 0.06),
    (tabletop, 0.05),
)


def compose(canvas: Canvas, dice: Dice) -> None:
    """Draw a kind of scene and paint it."""
    kind = dice.weighted([k for k, _ in KINDS], [w for _, w in KINDS])
    kind(canvas, dice)
    if dice.chance(0.14):
        foreground(canvas, dice)
