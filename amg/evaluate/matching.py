"""Which mask finds which instance: ranked masks choose in turn, or the best pairs of all."""

import numpy as np
from scipy.optimize import linear_sum_assignment

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""COCO's: 0.5, 0.55, ..., 0.95."""


def match_ranked(ious: np.ndarray, thresholds: np.ndarray = IOU_THRESHOLDS) -> np.ndarray:
    """Let masks, best first, each take the most similar instance that is left.

    ious: (M, G) of masks in the order of their rank with instances. Gives (T, G) int64: the rank
    of the mask that took the instance at each threshold, M where none did. As the better masks
    choose first, those of rank < k are what the k best masks alone would find.

    Of instances that are equally similar the last is taken, as in `COCOeval.evaluateImg`.
    """
    n_masks, n_instances = ious.shape
    taken_by = np.full((len(thresholds), n_instances), n_masks)
    least = np.minimum(thresholds, 1 - 1e-10)[:, None]
    if not ious.size:
        return taken_by
    for rank in np.flatnonzero(ious.max(axis=1) >= least.min()):
        is_free = (taken_by == n_masks) & (ious[rank] >= least)
        found = np.flatnonzero(is_free.any(axis=1))
        candidates = np.where(is_free[found], ious[rank], -1.0)
        last_best = n_instances - 1 - candidates[:, ::-1].argmax(axis=1)
        taken_by[found, last_best] = rank
    return taken_by


def match_pairs(ious: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Pair masks one to one so that the sum of IoUs is greatest: rows (P,) and columns (P,).

    Pairs of less than `least` are no pairs. ious: (M, N).
    """
    rows, columns = linear_sum_assignment(np.where(ious >= least, ious, 0.0), maximize=True)
    is_pair = ious[rows, columns] >= least
    return rows[is_pair], columns[is_pair]
