from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from amg.evaluate.calibration import calibrate, scored_masks
from tests.evaluate.shapes import box, mask


def test_bins_by_hand():
    masks = np.array([[0.81, 0.9, 0.5], [0.84, 0.9, 0.7], [0.85, 0.9, 0.9], [1.2, 0.9, 1.0]])
    predicted, stability = calibrate([masks[:1], masks[1:]])
    assert [(b.low, b.high, b.n_masks) for b in predicted.bins] == [
        (0.81, 0.82, 1),
        (0.84, 0.85, 1),
        (0.85, 0.86, 1),
        (0.99, 1.0, 1),
    ]
    assert predicted.wider_bins(20) == predicted.bins, "19 bins reach from the first to the last"
    wide = predicted.wider_bins(5)
    assert [(b.low, b.high, b.n_masks) for b in wide] == [
        (0.8, 0.85, 2),
        (0.85, 0.9, 1),
        (0.95, 1.0, 1),
    ]
    assert wide[0].mean_score == pytest.approx(0.825)
    assert wide[0].mean_iou == pytest.approx(0.6)
    old = replace(predicted, bins=wide)  # as earlier versions kept them
    assert old.wider_bins(20) == wide
    assert (stability.pearson, stability.spearman) == (None, None)  # all the same


def test_correlations_are_scipys():
    masks = np.random.default_rng(0).random((200, 3)).round(2)  # with ties
    for k, score in enumerate(calibrate([masks])):
        assert score.pearson == pytest.approx(pearsonr(masks[:, k], masks[:, 2]).statistic)
        assert score.spearman == pytest.approx(spearmanr(masks[:, k], masks[:, 2]).statistic)


def test_scores_that_are_no_number_are_left_out():
    _, stability = calibrate([np.array([[0.5, np.nan, 0.2], [0.5, 0.6, 0.3]])])
    assert stability.n_masks == 1
    assert stability.bins[0].mean_iou == pytest.approx(0.3)


@pytest.mark.parametrize("most", [1, 2, 3, 10, 20, 100])
def test_wider_bins_lose_no_mask(most):
    scores = np.random.default_rng(0).random((500, 3)) * 1.02
    for score in calibrate([scores]):
        bins = score.wider_bins(most)
        assert 0 < len(bins) <= most
        assert sum(part.n_masks for part in bins) == 500
        mean = sum(part.n_masks * part.mean_iou for part in bins) / 500
        assert mean == pytest.approx(scores[:, 2].mean())
        assert all(a.high <= b.low for a, b in pairwise(bins))
    assert calibrate([])[0].wider_bins(most) == ()


def test_masks_of_images_without_instances_say_nothing():
    one = mask(box((4, 4), 0, 2, 0, 2), 0.75, 0.5)
    assert len(scored_masks([one], np.zeros((1, 0)))) == 0
    assert scored_masks([one], np.array([[0.25, 0.5]])).tolist() == [[0.75, 0.5, 0.5]]
    assert [score.n_masks for score in calibrate([])] == [0, 0]
