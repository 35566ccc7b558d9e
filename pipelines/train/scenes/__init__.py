"""Procedural scenes: photographs that never were, with masks of parts, objects and groups."""

from collections.abc import Iterator

import numpy as np

from pipelines.train.scenes.camera import develop
from pipelines.train.scenes.canvas import Canvas
from pipelines.train.scenes.dice import Dice
from pipelines.train.scenes.kinds import compose
from pipelines.train.scenes.lighting import make_light
from pipelines.train.scenes.scene import Scene, finish_labels

__all__ = ["Scene", "make_scene", "make_views"]

LEAST_PART_PX = 6


def make_scene(rng: np.random.Generator, size_px: int) -> Scene:
    """A random scene of `size_px` by `size_px` pixels, fixed by the state of `rng`.

    The first call in a process makes the texture bank, which takes seconds.
    """
    return next(make_views(rng, size_px, 1))


def make_views(rng: np.random.Generator, size_px: int, n_views: int) -> Iterator[Scene]:
    """One random scene as several photographs: other cameras, every second one a mirror image.

    Another photograph takes a fifth of the time of another scene.
    """
    if not 32 <= size_px <= 1024:
        raise ValueError(f"size_px must be in [32, 1024], got {size_px}")
    dice = Dice(rng)
    canvas = Canvas(size_px, dice, make_light(dice))
    compose(canvas, dice)
    levels = finish_labels(canvas, max(2, round(LEAST_PART_PX * canvas.unit_px**2)))
    for view in range(n_views):
        step = -1 if view % 2 else 1
        image = np.ascontiguousarray(canvas.image[:, ::step])
        yield Scene(develop(dice, image), np.ascontiguousarray(levels[:, :, ::step]))
