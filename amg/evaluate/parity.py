"""How far two results for the same image are from each other, mask by mask."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from amg.evaluate.iou import pairwise_iou
from amg.ops import rle
from amg.records import Mask, Prompt

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


def compare_masks(reference: Sequence[Mask], ours: Sequence[Mask]) -> ParityReport:
    """Compare two lists of masks of one image.

    With unequal counts the shorter list decides how many are compared.
    """
    twins = list(zip(reference, ours, strict=False))
    differences = [_difference(a.predicted_iou, b.predicted_iou) for a, b in twins]
    differences += [
        max(_difference(a.stability_score, b.stability_score) - 1 / max(a.area, 1), 0.0)
        for a, b in twins
    ]
    box_differences = [np.abs(np.subtract(a.bbox_xywh, b.bbox_xywh)).max() for a, b in twins]
    return ParityReport(
        n_reference=len(reference),
        n_ours=len(ours),
        n_identical=sum(a.rle == b.rle for a, b in twins),
        min_iou=min((_iou(a, b) for a, b in twins), default=1.0),
        max_score_difference=max(differences, default=0.0),
        max_box_difference_px=float(max(box_differences, default=0.0)),
        same_places=all(
            _same_points(a, b) and a.crop_box_xywh == b.crop_box_xywh for a, b in twins
        ),
    )


def compare_annotations(
    reference: Sequence[Mapping[str, Any]], ours: Sequence[Mapping[str, Any]]
) -> ParityReport:
    """Compare two lists of annotations with COCO RLE, as the original generator gives them."""
    return compare_masks(read_annotations(reference), read_annotations(ours))


def count_found(reference: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> int:
    """How many masks of the reference have one of IoU 0.9 among the others, at any place."""
    masks, candidates = (
        [rle.from_coco(annotation["segmentation"]) for annotation in annotations]
        for annotations in (reference, others)
    )
    best = pairwise_iou(masks, candidates).max(axis=1, initial=0.0)
    return int((best >= MIN_IOU_FOUND).sum())


def read_annotations(annotations: Sequence[Mapping[str, Any]]) -> list[Mask]:
    """Masks of annotations with COCO RLE; these tell nothing of a mask's layer and level.

    Raises RleError for run lengths that are not valid.
    """
    return [
        Mask(
            rle=rle.from_coco(annotation["segmentation"]),
            area=annotation["area"],
            bbox_xywh=tuple(annotation["bbox"]),
            predicted_iou=annotation["predicted_iou"],
            stability_score=annotation["stability_score"],
            **_asked(annotation["point_coords"]),
            crop_box_xywh=tuple(annotation["crop_box"]),
            crop_layer=0,
            level=0,
        )
        for annotation in annotations
    ]


def _asked(points: Sequence[Sequence[float]]) -> dict[str, Any]:
    """What a mask keeps of the points that it was asked with: they may be none, or several."""
    points_xy = tuple((x, y) for x, y in points)
    if len(points_xy) == 1:
        return {"point_xy": points_xy[0]}
    return {"point_xy": None, "prompt": Prompt(points_xy=points_xy)}


def _same_points(first: Mask, second: Mask) -> bool:
    points, others = first.points_xy, second.points_xy
    return len(points) == len(others) and np.allclose(points, others)


def _difference(first: float, second: float) -> float:
    """Between two scores; no number is equal to no number alone."""
    if math.isnan(first) or math.isnan(second):
        return 0.0 if math.isnan(first) and math.isnan(second) else math.inf
    return abs(first - second)


def _iou(first: Mask, second: Mask) -> float:
    if first.rle == second.rle:  # two empty masks too
        return 1.0
    return float(pairwise_iou([first.rle], [second.rle])[0, 0])
