"""Masks that overlap, as one map in which each pixel has at most one of them."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from amg.ops import rle
from amg.records import Mask

Int32s = npt.NDArray[np.int32]
Overlap = Literal["smaller-on-top", "score"]


def paint(
    masks: Sequence[Mask], values: Sequence[int], size_hw: tuple[int, int], overlap: Overlap
) -> Int32s:
    """Paint masks over each other, each with its value: (H, W) int32, 0 where there is none.

    overlap: which of two is on top: the smaller one ("smaller-on-top"), so that parts stay visible
    on their objects, or the one with the higher predicted IoU ("score"). Equal ones are told apart
    by the other, then the first is on top. Raises RleError as `rle.decode`.
    """
    canvas = np.zeros(size_hw[::-1], np.int32)  # column-major, as masks are decoded
    for i in sorted(range(len(masks)), key=lambda i: (*_height(masks[i], overlap), -i)):
        np.copyto(canvas, values[i], where=rle.decode(masks[i].rle).T)
    return np.ascontiguousarray(canvas.T)


def pixel_boxes_xywh(
    canvas: Int32s, masks: Sequence[Mask], values: Sequence[int]
) -> list[list[int]]:
    """The tight box of each value's pixels on a painted map: w and h count pixels, 0 if none."""
    boxes = []
    for mask, value in zip(masks, values, strict=True):
        x, y, w, h = map(int, rle.pixel_box_xywh(mask.rle))
        seen = canvas[y : y + h, x : x + w] == value
        columns, rows = np.flatnonzero(seen.any(axis=0)), np.flatnonzero(seen.any(axis=1))
        if len(columns) == 0:
            boxes.append([0, 0, 0, 0])
            continue
        (x0, x1), (y0, y1) = columns[[0, -1]].tolist(), rows[[0, -1]].tolist()
        boxes.append([x + x0, y + y0, x1 - x0 + 1, y1 - y0 + 1])
    return boxes


def _height(mask: Mask, overlap: Overlap) -> tuple[float, float]:
    """What is painted later has more of it."""
    by_size, by_score = -mask.area, mask.predicted_iou
    return (by_size, by_score) if overlap == "smaller-on-top" else (by_score, by_size)
