"""Masks that overlap: which are copies of others, and which lie in which."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from amg.ops.boxes import record_boxes_xyxy
from amg.ops.rle_overlap import intersection_areas
from amg.records import Mask

Int64s = npt.NDArray[np.int64]

_PAIRS_AT_ONCE = 1 << 20  # of boxes that are compared: bounds memory however many masks there are


def suppress_overlapping(masks: list[Mask], iou_threshold: float) -> list[Mask]:
    """Of masks whose IoU is above the threshold keep the one of higher predicted IoU.

    Of equal scores the first one stays. The order stays as it is.
    """
    order = sorted(range(len(masks)), key=lambda i: -masks[i].predicted_iou)
    copies: dict[int, list[int]] = {}
    for one, other in _pairs_over(masks, iou_threshold).tolist():
        copies.setdefault(one, []).append(other)
        copies.setdefault(other, []).append(one)
    removed: set[int] = set()
    for i in order:
        if i not in removed:
            removed.update(copies.get(i, ()))
    return [mask for i, mask in enumerate(masks) if i not in removed]


def _pairs_over(masks: Sequence[Mask], iou_threshold: float) -> Int64s:
    """The pairs (P, 2) of masks whose IoU is above a threshold."""
    areas = _areas(masks)
    pairs, most = _pairs_of_boxes(masks)
    total = areas[pairs].sum(axis=1)
    # IoU grows with what is shared, of which boxes and areas say how much it is at most.
    most = np.minimum(most, areas[pairs].min(axis=1))
    possible = most / (total - most) > iou_threshold
    pairs, total = pairs[possible], total[possible]
    shared = intersection_areas([mask.rle for mask in masks], pairs)
    return pairs[shared / (total - shared) > iou_threshold]


def find_parents(masks: Sequence[Mask], containment: float) -> list[Mask]:
    """Give each mask its parent: the smallest that contains it, the first of several as small.

    A larger mask contains another if it shares at least `containment` of its pixels. Masks of
    equal area contain each other never, so that no mask is its own ancestor.
    """
    areas = _areas(masks)
    pairs, most = _pairs_of_boxes(masks)
    pairs = np.where(areas[pairs[:, :1]] <= areas[pairs[:, 1:]], pairs, pairs[:, ::-1])
    child, parent = pairs.T
    possible = (areas[child] < areas[parent]) & (most / areas[child] >= containment)
    pairs = pairs[possible]
    shared = intersection_areas([mask.rle for mask in masks], pairs)
    child, parent = pairs[shared / areas[pairs[:, 0]] >= containment].T
    largest_first = np.lexsort((-parent, -areas[parent]))
    parents: list[int | None] = [None] * len(masks)
    for i in largest_first.tolist():  # the smallest of a child's comes last, and stays
        parents[child[i]] = int(parent[i])
    return [
        mask if mask.parent == parent else replace(mask, parent=parent)
        for mask, parent in zip(masks, parents, strict=True)
    ]


def _areas(masks: Sequence[Mask]) -> Int64s:
    return np.array([mask.area for mask in masks], dtype=np.int64)


def _pairs_of_boxes(masks: Sequence[Mask]) -> tuple[Int64s, Int64s]:
    """The pairs (P, 2) of masks, not empty, whose boxes share pixels, and how many (P,)."""
    filled = np.flatnonzero(_areas(masks))
    boxes = record_boxes_xyxy([masks[i] for i in filled.tolist()]).astype(np.int64)
    first, last = boxes[:, :2], boxes[:, 2:]
    parts = [(np.zeros((0, 2), np.int64), np.zeros(0, np.int64))]
    step = max(1, _PAIRS_AT_ONCE // max(1, len(filled)))
    for start in range(0, len(filled), step):
        some = slice(start, start + step)
        sides = np.minimum(last[some, None], last) - np.maximum(first[some, None], first) + 1
        meet = np.triu((sides > 0).all(axis=2), start + 1)
        one, other = np.nonzero(meet)
        parts.append((filled[np.stack([start + one, other], axis=1)], sides[meet].prod(axis=1)))
    pairs, most = (np.concatenate(column) for column in zip(*parts, strict=True))
    return pairs, most
