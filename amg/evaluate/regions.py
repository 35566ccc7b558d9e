"""How well masks match what people drew: region covering and average recall."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_IOU_THRESHOLDS = np.arange(0.5, 1.0, 0.05)
_MIN_REGION_PX = 100


@dataclass(frozen=True, slots=True)
class RegionScore:
    """Of one image: `covering` in [0, 1], and the best IoU of each human region of 100 px or more.

    Covering is averaged over annotators; `best_ious` (R,) holds all annotators' regions.
    """

    covering: float
    best_ious: np.ndarray


def score_regions(masks: np.ndarray, segmentations: Sequence[np.ndarray]) -> RegionScore:
    """Compare masks (M, H, W) bool with annotators' label maps (H, W) of any integers.

    Source of covering: "Contour Detection and Hierarchical Image Segmentation" (2011),
    section 3.1, with overlapping masks in place of a partition.
    """
    coverings, best = [], []
    for labels in segmentations:
        ious, areas = _best_ious(masks, labels)
        coverings.append(float((ious * areas).sum() / areas.sum()))
        best.append(ious[areas >= _MIN_REGION_PX])
    return RegionScore(float(np.mean(coverings)), np.concatenate(best))


def mean_covering(scores: Sequence[RegionScore]) -> float:
    """Mean over images."""
    return float(np.mean([score.covering for score in scores]))


def average_recall(scores: Sequence[RegionScore]) -> float:
    """Share of all images' regions that a mask finds, averaged over IoU 0.5, 0.55, ..., 0.95."""
    best_ious = np.concatenate([score.best_ious for score in scores])
    return float((best_ious[:, None] >= _IOU_THRESHOLDS).mean())


def _best_ious(masks: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each label: the best IoU of any mask, and its area in pixels; both (R,)."""
    _, regions = np.unique(labels.ravel(), return_inverse=True)
    areas = np.bincount(regions)
    if not len(masks):
        return np.zeros(len(areas)), areas
    overlaps = np.stack(
        [np.bincount(regions[mask], minlength=len(areas)) for mask in masks.reshape(len(masks), -1)]
    )
    unions = overlaps.sum(1, keepdims=True) + areas - overlaps
    return (overlaps / unions).max(0), areas
