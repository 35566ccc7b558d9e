"""Average recall: how many of an image's instances its first masks find.

Source: "What makes for effective detection proposals?" (2015) and COCO's evaluation. In COCOeval
instances that a group leaves out (crowds, other sizes) only take masks that found no instance of
the group, so recall is the same without them, and a group is a choice of columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from amg.evaluate.matching import IOU_THRESHOLDS, match_ranked
from amg.evaluate.results import AverageRecall

Limits = tuple[int | None, ...]
"""How many masks of an image count, for each of K measurements; None: all."""


@dataclass(frozen=True, slots=True)
class RecallCounts:
    """What some images' instances come to; counts add up.

    `n_found` (T, K): instances found at each IoU threshold by the masks within each limit;
    `best_iou_sum` (K,): over instances, of the IoU of the most similar mask within each limit.
    """

    n_instances: int
    n_found: np.ndarray
    best_iou_sum: np.ndarray

    def __add__(self, other: "RecallCounts") -> "RecallCounts":
        return RecallCounts(
            self.n_instances + other.n_instances,
            self.n_found + other.n_found,
            self.best_iou_sum + other.best_iou_sum,
        )

    @staticmethod
    def none(n_limits: int) -> "RecallCounts":
        """The counts of no instance."""
        n_found = np.zeros((len(IOU_THRESHOLDS), n_limits), dtype=np.int64)
        return RecallCounts(0, n_found, np.zeros(n_limits))

    @staticmethod
    def of(ious: np.ndarray, limits: Limits) -> "RecallCounts":
        """The counts of one image from IoUs (M, G) of ranked masks with instances."""
        n_masks, n_instances = ious.shape
        ends = [n_masks if limit is None else limit for limit in limits]
        taken_by = match_ranked(ious)
        is_found = taken_by < n_masks
        n_found = [(is_found & (taken_by < end)).sum(axis=1) for end in ends]
        best = best_ious(ious, limits)
        return RecallCounts(n_instances, np.stack(n_found, axis=1), best.sum(axis=0))


def summarise_recall(group: str, counts: RecallCounts, limits: Limits) -> list[AverageRecall]:
    """The recall of a group at each limit."""
    n = counts.n_instances
    if not n:
        return [AverageRecall(group, 0, limit, None, None, None) for limit in limits]
    recall = counts.n_found / n
    return [
        AverageRecall(
            group=group,
            n_instances=n,
            max_masks=limit,
            average_recall=float(recall[:, k].mean()),
            mean_best_iou=float(counts.best_iou_sum[k] / n),
            recall=tuple(recall[:, k].tolist()),
        )
        for k, limit in enumerate(limits)
    ]


def best_ious(ious: np.ndarray, limits: Limits) -> np.ndarray:
    """For each instance the IoU of the most similar mask within each limit, (G, K).

    ious: (M, G) of ranked masks with instances.
    """
    best = [ious[:limit].max(axis=0, initial=0.0) for limit in limits]
    return np.stack(best, axis=1) if best else np.zeros((ious.shape[1], 0))


def parse_limits(values: Sequence[int]) -> Limits:
    """Limits in rising order, and all masks at last."""
    return (*sorted(set(values)), None)
