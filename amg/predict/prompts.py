"""Prompts, one by one as people give them, to batches of such that are alike."""

from collections.abc import Sequence

import numpy as np

from amg.models.interface import Frame, PromptableModel, PromptBatch
from amg.ops import rle
from amg.prompts.checks import LABELS, problem_of, problem_of_box, problem_of_points
from amg.records import Prompt


def check_prompts(prompts: Sequence[Prompt], size_hw: tuple[int, int]) -> None:
    """Raise ValueError for one that cannot be asked of an image of `size_hw`: which, and why."""
    for index, prompt in enumerate(prompts):
        if problem := problem_of(prompt, size_hw, LABELS):
            named = "" if prompt.prompt_id is None else f" ({prompt.prompt_id})"
            raise ValueError(f"prompts[{index}]{named}: {problem}")


def check_boxes(boxes_xyxy: np.ndarray, size_hw: tuple[int, int]) -> None:
    """Raise ValueError for the first of some boxes (N, 4) that cannot be asked with."""
    for box in boxes_xyxy.tolist():
        if problem := problem_of_box(box, size_hw):
            raise ValueError(problem)


def check_points(points_xy: np.ndarray, labels: np.ndarray, size_hw: tuple[int, int]) -> None:
    """Raise ValueError for points (N, P, 2) and labels (N, P) that cannot be asked with."""
    if len(labels) != len(points_xy):
        raise ValueError(f"point_labels of {len(labels)} prompts, points of {len(points_xy)}")
    for points, theirs in zip(points_xy.tolist(), labels.tolist(), strict=True):
        if problem := problem_of_points(points, theirs, size_hw, LABELS):
            raise ValueError(problem)


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
