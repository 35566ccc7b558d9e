"""How much masks overlap, from their run lengths: no pixel is drawn."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from amg.ops import rle
from amg.ops.rle_batch import validate_all
from amg.records import Mask, Rle


def pairwise_iou(first: Sequence[Rle], second: Sequence[Rle]) -> np.ndarray:
    """IoU (M, N) float64 of M masks with N masks of the same image, as COCO's own tools have it.

    Two empty masks have 0. The run lengths must be valid, as all of ours are and `validated` makes
    others: pycocotools crashes on some that are not.
    """
    assert len({mask.size_hw for mask in (*first, *second)}) <= 1, "masks of one image"
    if not first or not second:
        return np.zeros((len(first), len(second)))
    others = _to_coco(second)
    return np.asarray(coco_mask.iou(_to_coco(first), others, [0] * len(others)))


def validated(masks: Sequence[Mask]) -> list[Rle]:
    """The run lengths of masks that come from a file. Raises RleError for what is no valid mask."""
    return validate_all([mask.rle for mask in masks])


def _to_coco(masks: Sequence[Rle]) -> list[Any]:
    return [rle.to_coco(mask) for mask in masks]
