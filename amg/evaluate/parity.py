"""How far two results for the same image are from each other, mask by mask."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from amg.evaluate.overlap import pairwise_iou
from amg.ops import rle

MIN_IOU = 0.999
MIN_IOU_FOUND = 0.9
MAX_SCORE_DIFFERENCE = 1e-4
MAX_BOX_DIFFERENCE_PX = 1.0  # a pixel flipped by rounding may be a box's last


@dataclass(frozen=True, slots=True)
class ParityReport:
    """The comparison of one image: twins are the masks at the same place in both lists.

    `max_score_difference` is infinite where only one twin's score is a number, and leaves out of
    stability what one pixel flipped by rounding makes of it (at most 1 / area);
    `max_box_difference_px` is over all four numbers of boxes, and `same_places` over points and
    crops.
    """

    n_reference: int
    n_ours: int
    n_identical: int
    min_iou: float
    max_score_difference: float
    max_box_difference_px: float
    same_places: bool

    @property
    def exact(self) -> bool:
        """Whether the results are the same but for rounding at the threshold."""
        return (
            self.n_reference == self.n_ours
            and self.min_iou >= MIN_IOU
            and self.max_score_difference <= MAX_SCORE_DIFFERENCE
            and self.max_box_difference_px <= MAX_BOX_DIFFERENCE_PX
            and self.same_places
        )


def compare_annotations(
    reference: Sequence[Mapping[str, Any]], ours: Sequence[Mapping[str, Any]]
) -> ParityReport:
    """Compare two lists of annotations with COCO RLE, as the original generator gives them.

    With unequal counts the shorter list decides how many are compared.
    """
    twins = list(zip(reference, ours, strict=False))
    ious = [_iou(a["segmentation"], b["segmentation"]) for a, b in twins]
    differences = [_difference(a["predicted_iou"], b["predicted_iou"]) for a, b in twins]
    differences += [
        max(_difference(a["stability_score"], b["stability_score"]) - 1 / max(a["area"], 1), 0.0)
        for a, b in twins
    ]
    box_differences = [np.abs(np.subtract(a["bbox"], b["bbox"])).max() for a, b in twins]
    return ParityReport(
        n_reference=len(reference),
        n_ours=len(ours),
        n_identical=sum(a["segmentation"] == b["segmentation"] for a, b in twins),
        min_iou=min(ious, default=1.0),
        max_score_difference=max(differences, default=0.0),
        max_box_difference_px=float(max(box_differences, default=0.0)),
        same_places=all(
            np.allclose(a["point_coords"], b["point_coords"]) and a["crop_box"] == b["crop_box"]
            for a, b in twins
        ),
    )


def count_found(reference: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> int:
    """How many masks of the reference have one of IoU 0.9 among the others, at any place."""
    return int((best_ious(reference, others) >= MIN_IOU_FOUND).sum())


def best_ious(
    reference: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]
) -> np.ndarray:
    """For each mask of the reference the IoU (M,) of the most similar one among the others.

    For results that are not meant to be the same. Both are annotations with COCO RLE.
    """
    if not reference or not others:
        return np.zeros(len(reference))
    masks, candidates = (
        [rle.from_coco(annotation["segmentation"]) for annotation in annotations]
        for annotations in (reference, others)
    )
    return pairwise_iou(masks, candidates).max(axis=1)


def _difference(first: float, second: float) -> float:
    """Between two scores; no number is equal to no number alone."""
    if math.isnan(first) or math.isnan(second):
        return 0.0 if math.isnan(first) and math.isnan(second) else math.inf
    return abs(first - second)


def _iou(first: Mapping[str, Any], second: Mapping[str, Any]) -> float:
    if first == second:
        return 1.0
    return float(pairwise_iou([rle.from_coco(first)], [rle.from_coco(second)])[0, 0])
