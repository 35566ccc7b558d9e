"""How much masks overlap, from their run lengths: no mask is decoded."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from amg.errors import RleError
from amg.ops import rle
from amg.ops.run_ends import run_ends
from amg.records import Mask, Rle

# Numbers of seven characters: legal, but pycocotools misreads their sign.
_LONG_NUMBER = re.compile("[P-o]{6}")


def pairwise_iou(
    first: Sequence[Rle], second: Sequence[Rle], are_crowds: Sequence[int] | None = None
) -> np.ndarray:
    """IoU (M, N) float64 of M masks with N masks of the same image, as COCO's own tools have it.

    Of a crowd among the second it is the share of the first mask that lies in it. Two empty masks
    have 0. The run lengths must be valid, as all of ours are and `validated` makes
    others: pycocotools crashes on some that are not.
    """
    assert len({mask.size_hw for mask in (*first, *second)}) <= 1, "masks of one image"
    if not first or not second:
        return np.zeros((len(first), len(second)))
    others = _to_coco(second)
    return np.asarray(coco_mask.iou(_to_coco(first), others, list(are_crowds or [0] * len(others))))


def validated(masks: Sequence[Mask]) -> list[Rle]:
    """The run lengths of an image's masks from a file, fit for pycocotools.

    Raises RleError for what is no valid mask.
    """
    shapes = [mask.rle for mask in masks]
    if _are_plain(shapes):
        return shapes
    return [rle.validate(shape.counts, shape.size_hw) for shape in shapes]


def _are_plain(shapes: Sequence[Rle]) -> bool:
    """Whether all are valid beyond doubt; quicker by far than `rle.validate` of each."""
    if len({shape.size_hw for shape in shapes}) != 1:
        return False
    height, width = shapes[0].size_hw
    if min(height, width) < 1 or height * width > rle.MAX_PIXELS:
        return False
    try:
        run_ends(shapes)
    except RleError:
        return False
    return not any(_LONG_NUMBER.search(shape.counts) for shape in shapes)


def _to_coco(masks: Sequence[Rle]) -> list[Any]:
    return [rle.to_coco(mask) for mask in masks]
