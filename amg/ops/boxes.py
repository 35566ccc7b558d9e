"""Boxes in their two forms: by two corners, XYXY, and by a corner and the sides, XYWH.

A mask's corners are the first and the last index, its sides their differences, as in the original
generator: one less than a count of pixels, which `rle.pixel_box_xywh` has.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from amg.records import Mask


def xywh_to_xyxy(boxes: np.ndarray) -> np.ndarray:
    """A corner and sides to two corners: (..., 4) to (..., 4), of any numbers."""
    corners = boxes[..., :2], boxes[..., :2] + boxes[..., 2:]
    return np.concatenate(corners, axis=-1)


def xyxy_to_xywh(boxes: np.ndarray) -> np.ndarray:
    """Two corners to a corner and sides: (..., 4) to (..., 4), of any numbers."""
    return np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)


def record_boxes_xyxy(masks: Sequence[Mask]) -> npt.NDArray[np.float64]:
    """The boxes (M, 4) of an image's masks, in its pixels, by first and last index."""
    boxes = np.array([mask.bbox_xywh for mask in masks], np.float64).reshape(-1, 4)
    return xywh_to_xyxy(boxes)
