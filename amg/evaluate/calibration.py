"""Do a mask's scores tell how good it is? Predicted IoU and stability beside the true IoU."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from amg.evaluate.ranking import mask_scores
from amg.evaluate.results import SCORES, CalibrationBin, ScoreCalibration, ScoreName
from amg.records import Mask

_N_BINS = 100

ScoredMasks = np.ndarray
"""Of M masks: predicted IoU, stability, and the IoU with the most similar instance, (M, 3) float32.
Numbers are all that is kept of masks, so those of a corpus fit into memory."""


def scored_masks(masks: Sequence[Mask], ious: np.ndarray) -> ScoredMasks:
    """Scores and true IoU of an image's masks from their IoUs (M, G) with its instances.

    None of them where nobody has drawn an instance: that says nothing of the masks.
    """
    if not ious.shape[1]:
        return np.zeros((0, 3), np.float32)
    true_iou = ious.max(axis=1, initial=0.0)
    return np.column_stack([mask_scores(masks), true_iou]).astype(np.float32)


def calibrate(images: Sequence[ScoredMasks]) -> list[ScoreCalibration]:
    """How well both scores tell the true IoU, over the masks of all images."""
    masks = np.concatenate([np.zeros((0, 3), np.float32), *images]).astype(np.float64)
    return [_calibrate(name, masks[:, k], masks[:, 2]) for k, name in enumerate(SCORES)]


def _calibrate(name: ScoreName, scores: np.ndarray, ious: np.ndarray) -> ScoreCalibration:
    is_number = np.isfinite(scores)
    scores, ious = scores[is_number], ious[is_number]
    bin_index = np.clip(np.floor(scores * _N_BINS), 0, _N_BINS - 1).astype(int)
    bins = [
        CalibrationBin(
            low=k / _N_BINS,
            high=(k + 1) / _N_BINS,
            n_masks=int(chosen.sum()),
            mean_score=float(scores[chosen].mean()),
            mean_iou=float(ious[chosen].mean()),
        )
        for k in np.unique(bin_index).tolist()
        for chosen in [bin_index == k]
    ]
    varies = len(scores) > 1 and np.ptp(scores) > 0 and np.ptp(ious) > 0
    return ScoreCalibration(
        score=name,
        n_masks=len(scores),
        pearson=_correlation(scores, ious) if varies else None,
        spearman=_correlation(rankdata(scores), rankdata(ious)) if varies else None,
        bins=tuple(bins),
    )


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's; of ranks it is Spearman's."""
    return float(np.corrcoef(first, second)[0, 1])
