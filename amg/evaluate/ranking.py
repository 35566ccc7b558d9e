"""Which masks of an image come first."""

from collections.abc import Sequence
from enum import StrEnum

import numpy as np

from amg.records import Mask


class Rank(StrEnum):
    """The score by which masks are ranked; `mean` is what SAM's paper takes for proposals."""

    PREDICTED_IOU = "predicted_iou"
    STABILITY = "stability"
    MEAN = "mean"


def ranked(masks: Sequence[Mask], by: Rank) -> list[Mask]:
    """Masks by descending score, equals in their order; a stability that is no number is 0."""
    scores = mask_scores(masks)
    chosen = {
        Rank.PREDICTED_IOU: scores[:, 0],
        Rank.STABILITY: scores[:, 1],
        Rank.MEAN: scores.mean(axis=1),
    }[by]
    order = np.argsort(-np.nan_to_num(chosen, nan=0.0), kind="stable")
    return [masks[index] for index in order]


def mask_scores(masks: Sequence[Mask]) -> np.ndarray:
    """Predicted IoU and stability of masks, (M, 2) float64."""
    scores = [(mask.predicted_iou, mask.stability_score) for mask in masks]
    return np.array(scores, dtype=np.float64).reshape(-1, 2)
