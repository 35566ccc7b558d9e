"""Whether a prompt can be asked of an image: told apart before a model sees it."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from amg.records import Prompt

LABELS: Mapping[int, str] = {
    1: "1, on the object",
    0: "0, off it",
    -1: "-1, no point",
    -10: "-10, what Hugging Face's models pad with",
}
"""What points can be to a model."""


def in_pixels(prompt: Prompt, size_hw: tuple[int, int]) -> Prompt:
    """A prompt in shares of the image's size, in its pixels."""
    height, width = size_hw
    box = prompt.box_xyxy
    scaled = None
    if box is not None:
        scaled = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
    points = tuple((x * width, y * height) for x, y in prompt.points_xy)
    return replace(prompt, box_xyxy=scaled, points_xy=points)


def problem_of(
    prompt: Prompt, size_hw: tuple[int, int], labels: Collection[int] = (1, 0)
) -> str | None:
    """Why a prompt cannot be asked of an image of `size_hw` = (H, W), None if it can.

    A box may lie partly outside; points may not, but for padding. labels: those that points may
    have, some of `LABELS`.
    """
    if prompt.box_xyxy is None and not prompt.points_xy and prompt.mask is None:
        return "neither box nor points nor mask"
    if prompt.box_xyxy is not None and (problem := problem_of_box(prompt.box_xyxy, size_hw)):
        return problem
    if problem := problem_of_points(prompt.points_xy, prompt.labels, size_hw, labels):
        return problem
    if prompt.mask is not None and prompt.mask.size_hw != size_hw:
        height, width = prompt.mask.size_hw
        return f"mask of {width} x {height}, its image has {size_hw[1]} x {size_hw[0]}"
    return None


def problem_of_box(box_xyxy: Sequence[float], size_hw: tuple[int, int]) -> str | None:
    """Why a box cannot be asked of an image of `size_hw`, None if it can."""
    what = f"box {_listed(box_xyxy)}"
    if not all(map(math.isfinite, box_xyxy)):
        return f"{what} is not of finite numbers"
    x0, y0, x1, y1 = box_xyxy
    if x1 < x0 or y1 < y0:
        return f"{what} is upside down: its second corner lies before its first"
    if x1 == x0 or y1 == y0:
        return f"{what} is empty"
    height, width = size_hw
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        return f"{what} is outside its image of {width} x {height}"
    return None


def problem_of_points(
    points_xy: Sequence[Sequence[float]],
    labels: Sequence[int],
    size_hw: tuple[int, int],
    known: Collection[int],
) -> str | None:
    """Why some points cannot be asked together of an image of `size_hw`, None if they can."""
    if len(labels) != len(points_xy):
        return f"{len(labels)} labels for {len(points_xy)} points"
    height, width = size_hw
    for (x, y), label in zip(points_xy, labels, strict=True):
        what = f"point {_listed((x, y))}"
        if label not in known:
            expected = "; ".join(LABELS[each] for each in known)
            return f"label {label}: expected {expected}"
        if not (math.isfinite(x) and math.isfinite(y)):
            return f"{what} is not of finite numbers"
        if label >= 0 and not (0 <= x <= width and 0 <= y <= height):
            return f"{what} is outside its image of {width} x {height}"
    return None


def _listed(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:g}' for value in values)})"
