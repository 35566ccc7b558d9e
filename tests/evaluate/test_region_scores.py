import numpy as np
import pytest

from amg.evaluate.regions import RegionScore, average_recall, mean_covering, score_regions


def _halves(height=20, width=40):
    labels = np.zeros((height, width), dtype=np.int64)
    labels[:, width // 2 :] = 7
    return labels


def test_perfect_masks_score_one():
    labels = _halves()
    masks = np.stack([labels == 0, labels == 7])
    score = score_regions(masks, [labels, labels])
    assert score.covering == 1.0
    assert score.best_ious.tolist() == [1.0] * 4
    assert average_recall([score]) == 1.0


def test_covering_weighs_regions_by_their_share():
    labels = np.zeros((10, 40), dtype=np.int64)
    labels[:, 30:] = 1
    score = score_regions((labels == 0)[None], [labels])
    # The mask covers the first region wholly, the second not at all.
    assert score.covering == pytest.approx(0.75)


def test_the_best_mask_counts_and_annotators_are_averaged():
    whole = np.zeros((10, 20), dtype=np.int64)
    masks = np.stack([whole == 1, whole == 0])
    score = score_regions(masks, [whole, _halves(10, 20)])
    assert score.covering == pytest.approx((1.0 + 0.5) / 2)
    assert sorted(score.best_ious.tolist()) == [0.5, 0.5, 1.0]


def test_small_regions_do_not_count_for_recall():
    labels = _halves()
    labels[0, :50] = 3  # 40 pixels at most
    score = score_regions(np.stack([labels == 0, labels == 7]), [labels])
    assert len(score.best_ious) == 2


def test_recall_is_averaged_over_thresholds_and_images():
    scores = [RegionScore(0.5, np.array([0.72])), RegionScore(0.7, np.array([0.2, 1.0]))]
    assert average_recall(scores) == pytest.approx((0.5 + 0.0 + 1.0) / 3)
    assert mean_covering(scores) == pytest.approx(0.6)


def test_no_masks_score_zero():
    score = score_regions(np.zeros((0, 20, 40), dtype=bool), [_halves()])
    assert score.covering == 0.0
    assert average_recall([score]) == 0.0
