"""Whether a prompt can be asked of an image: told apart before a model sees it."""

import math
from dataclasses import replace

from amg.records import Prompt


def in_pixels(prompt: Prompt, size_hw: tuple[int, int]) -> Prompt:
    """A prompt in shares of the image's size, in its pixels."""
    height, width = size_hw
    box = prompt.box_xyxy
    scaled = None
    if box is not None:
        scaled = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
    points = tuple((x * width, y * height) for x, y in prompt.points_xy)
    return replace(prompt, box_xyxy=scaled, points_xy=points)


def problem_of(prompt: Prompt, size_hw: tuple[int, int]) -> str | None:
    """Why a prompt cannot be asked of an image of `size_hw` = (H, W), None if it can.

    A box may lie partly outside; points may not.
    """
    if prompt.box_xyxy is None and not prompt.points_xy and prompt.mask is None:
        return "neither box nor points"
    if prompt.box_xyxy is not None and (problem := _problem_of_box(prompt.box_xyxy, size_hw)):
        return f"box {_listed(prompt.box_xyxy)} {problem}"
    for point in prompt.points_xy:
        if problem := _problem_of_point(point, size_hw):
            return f"point {_listed(point)} {problem}"
    for label in prompt.labels:
        if label not in (0, 1):
            return f"label {label}: expected 1, on the object, or 0, off it"
    return None


def _problem_of_box(box: tuple[float, float, float, float], size_hw: tuple[int, int]) -> str | None:
    if not all(map(math.isfinite, box)):
        return "is not of finite numbers"
    x0, y0, x1, y1 = box
    if x1 < x0 or y1 < y0:
        return "is upside down: its second corner lies before its first"
    if x1 == x0 or y1 == y0:
        return "is empty"
    height, width = size_hw
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        return f"is outside its image of {width} x {height}"
    return None


def _problem_of_point(point: tuple[float, float], size_hw: tuple[int, int]) -> str | None:
    if not all(map(math.isfinite, point)):
        return "is not of finite numbers"
    height, width = size_hw
    if not (0 <= point[0] <= width and 0 <= point[1] <= height):
        return f"is outside its image of {width} x {height}"
    return None


def _listed(values: tuple[float, ...]) -> str:
    return f"({', '.join(f'{value:g}' for value in values)})"
