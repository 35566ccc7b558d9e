"""Prompts, one by one as people give them, to batches of such that are alike."""

from collections.abc import Sequence

import numpy as np

from amg.models.interface import Frame, PromptableModel, PromptBatch
from amg.ops import rle
from amg.records import Prompt

LABELS = (1, 0, -1, -10)
"""Of points: on the object, off it; no point, and a token of zeros, which others pad with."""


def check_prompts(prompts: Sequence[Prompt], size_hw: tuple[int, int]) -> None:
    """`check_prompt` of each; the error names which of them."""
    for index, prompt in enumerate(prompts):
        try:
            check_prompt(prompt, size_hw)
        except ValueError as error:
            named = "" if prompt.prompt_id is None else f" ({prompt.prompt_id})"
            raise ValueError(f"prompts[{index}]{named}: {error}") from None


def check_prompt(prompt: Prompt, size_hw: tuple[int, int]) -> None:
    """Raise ValueError that says why, for what cannot be asked of an image of `size_hw`.

    Nothing at all, numbers that are none, a box without area or wholly outside, a point
    outside (but for padding), labels that are not one for each point, a mask of another size.
    """
    if prompt.box_xyxy is None and not prompt.points_xy and prompt.mask is None:
        raise ValueError("a prompt without a box, a point or a mask")
    if prompt.box_xyxy is not None:
        check_boxes(np.array([prompt.box_xyxy], np.float64), size_hw)
    if prompt.points_xy or prompt.labels:
        points_xy = np.array(prompt.points_xy, np.float64).reshape(1, -1, 2)
        check_points(points_xy, np.array([prompt.labels]), size_hw)
    if prompt.mask is not None and prompt.mask.size_hw != size_hw:
        height, width = prompt.mask.size_hw
        raise ValueError(f"mask: {height} x {width} px, the image has {size_hw[0]} x {size_hw[1]}")


def check_boxes(boxes_xyxy: np.ndarray, size_hw: tuple[int, int]) -> None:
    """Raise ValueError for the first of some boxes (N, 4) that cannot be asked with."""
    height, width = size_hw
    for box in boxes_xyxy:
        x0, y0, x1, y1 = box
        if not np.isfinite(box).all():
            raise ValueError(f"box: {_shown(box)} has a number that is none")
        if x0 >= x1 or y0 >= y1:
            raise ValueError(f"box: {_shown(box)} has no area: XYXY are two corners")
        if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
            raise ValueError(f"box: {_shown(box)} is outside the image, {width} x {height} px")


def check_points(points_xy: np.ndarray, labels: np.ndarray, size_hw: tuple[int, int]) -> None:
    """Raise ValueError for points (N, P, 2) and labels (N, P) that cannot be asked with."""
    height, width = size_hw
    if labels.shape != points_xy.shape[:2]:
        raise ValueError(f"labels: {labels.shape[-1]} for {points_xy.shape[-2]} points")
    if unknown := set(labels.ravel().tolist()) - set(LABELS):
        raise ValueError(f"labels: {min(unknown)} is none of {LABELS}")
    if not np.isfinite(points_xy).all():
        raise ValueError("points: a coordinate is no number")
    outside = (points_xy < 0) | (points_xy > np.array([width, height]))
    bad = outside.any(axis=-1) & (labels >= 0)
    if bad.any():
        point = _shown(points_xy[bad][0])
        raise ValueError(f"points: {point} is outside the image, {width} x {height} px")


def _shown(numbers: np.ndarray) -> str:
    return "(" + ", ".join(f"{number:g}" for number in numbers.tolist()) + ")"


def group_alike(prompts: Sequence[Prompt]) -> list[list[int]]:
    """Indices of prompts that one batch can hold: as many points, and a box or a mask, or none.

    So no prompt is padded to the length of another, which would change its masks a little: each
    gets those that it gets alone.
    """
    groups: dict[tuple[int, bool, bool], list[int]] = {}
    for index, prompt in enumerate(prompts):
        kind = len(prompt.points_xy), prompt.box_xyxy is not None, prompt.mask is not None
        groups.setdefault(kind, []).append(index)
    return list(groups.values())


def to_batch(prompts: Sequence[Prompt], model: PromptableModel, frame: Frame) -> PromptBatch:
    """One or more prompts that are alike as arrays."""
    first = prompts[0]
    points_xy = labels = boxes_xyxy = masks = None
    if first.points_xy:
        points_xy = np.array([prompt.points_xy for prompt in prompts], np.float64)
        labels = np.array([prompt.labels for prompt in prompts], np.int64)
    if first.box_xyxy is not None:
        boxes_xyxy = np.array([prompt.box_xyxy for prompt in prompts], np.float64)
    if first.mask is not None:
        shapes = [rle.decode(prompt.mask) for prompt in prompts if prompt.mask is not None]
        masks = np.stack([model.mask_prompt(shape, frame) for shape in shapes])
    return PromptBatch(points_xy, labels, boxes_xyxy, masks)
