import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from amg.errors import EvaluationError
from amg.evaluate.edge_map import write_edge_map
from amg.evaluate.edges import (
    EdgeCounts,
    count_edges,
    match_pixels,
    score_edge_maps,
    summarise_edges,
)
from tests.evaluate.shapes import box
from tests.evaluate.test_bsds import write_mat

SIZE_HW = (60, 80)  # a diagonal of 100 pixels: reach is 0.75 pixels


def _counts(found, drawn, right, ours):
    return EdgeCounts(*(np.array(values) for values in (found, drawn, right, ours)))


def test_pixels_match_within_reach_one_to_one():
    ours, drawn = np.zeros(SIZE_HW, bool), np.zeros(SIZE_HW, bool)
    ours[10, [5, 6, 7]] = True
    drawn[10, 6] = drawn[11, 6] = drawn[14, 7] = True
    assert match_pixels(ours, drawn).tolist() == [1]  # only the same pixel
    assert len(match_pixels(ours, drawn, tolerance=0.01)) == 2  # 1 pixel: two drawn are near
    assert len(match_pixels(ours, drawn, tolerance=0.03999)) == 2
    assert len(match_pixels(ours, drawn, tolerance=0.04)) == 3  # 4 pixels
    assert len(match_pixels(ours, np.zeros(SIZE_HW, bool))) == 0
    assert len(match_pixels(np.zeros(SIZE_HW, bool), drawn)) == 0


@pytest.mark.parametrize("seed", range(5))
def test_as_many_pixels_match_as_can(seed):
    rng = np.random.default_rng(seed)
    ours, drawn = rng.random((2, 30, 40)) < 0.05
    reach_px = 0.05 * 50
    apart = np.linalg.norm(np.argwhere(ours)[:, None] - np.argwhere(drawn), axis=2)
    near = apart <= reach_px
    best = near[linear_sum_assignment(near, maximize=True)].sum()
    matched = match_pixels(ours, drawn, tolerance=0.05)
    assert len(matched) == best > 10
    assert near[matched].any(axis=1).all()


def test_counts_of_a_small_image_by_hand():
    strong, weak, human = (box(SIZE_HW, y, y + 1, 0, 50) for y in (10, 30, 45))
    edges = np.where(strong, 0.9, np.where(weak, 0.3, 0.0))
    # Both annotators drew the strong line, one of them half of another.
    half = human & box(SIZE_HW, 0, 60, 0, 25)
    counts = count_edges(edges, [strong, strong | half], n_thresholds=3)
    # At 0.25 both lines of ours are there, at 0.5 and 0.75 the strong one.
    assert counts.ours.tolist() == [100, 50, 50]
    assert counts.right.tolist() == [50, 50, 50]
    assert counts.found.tolist() == [100, 100, 100]
    assert counts.drawn.tolist() == [125, 125, 125]
    assert counts.precision.tolist() == [0.5, 1, 1]
    assert counts.recall.tolist() == [0.8, 0.8, 0.8]


def test_thick_edges_are_thinned_first():
    thick, line = box(SIZE_HW, 10, 13, 0, 80), box(SIZE_HW, 11, 12, 0, 80)
    counts = count_edges(thick.astype(float), [line], n_thresholds=1)
    assert counts.ours[0] <= 80
    assert counts.right[0] >= 76


def test_the_four_numbers_by_hand():
    first = _counts([80, 40], [100, 100], [40, 36], [80, 40])  # P .5, .9; R .8, .4
    score = summarise_edges([first])
    interpolated = [
        2 * p * r / (p + r)
        for p, r in zip(np.linspace(0.5, 0.9, 101), np.linspace(0.8, 0.4, 101), strict=True)
    ]
    assert score.ods == pytest.approx(max(interpolated))
    assert score.ois == pytest.approx(2 * 0.5 * 0.8 / 1.3)
    # From recall 0.4 to 0.8 precision falls in a line from 0.9 to 0.5: 41 values of mean 0.7.
    assert score.ap == pytest.approx(41 * 0.7 / 100)
    assert score.r50 == pytest.approx(0.8)
    assert score.precision == (0.5, 0.9)


def test_each_image_may_have_its_own_threshold():
    low, high = [90, 1], [1, 90]
    images = [
        _counts(low, [100, 100], low, [100, 100]),
        _counts(high, [100, 100], high, [100, 100]),
    ]
    score = summarise_edges(images)
    assert score.ois == pytest.approx(0.9)
    assert score.ods == pytest.approx(91 / 200)


def test_nothing_found_scores_zero():
    score = summarise_edges([count_edges(np.zeros(SIZE_HW), [box(SIZE_HW, 3, 4, 0, 9)], 3)])
    assert (score.ods, score.ois, score.ap, score.r50) == (0, 0, 0, 0)


def test_files_are_scored_by_pairs(tmp_path):
    line = box(SIZE_HW, 10, 11, 0, 80)
    pairs = []
    for name in "abc":
        path = tmp_path / f"{name}.png"
        write_edge_map(path, line * 0.5)
        labels = np.where(box(SIZE_HW, 0, 10, 0, 80), 1, 2)
        pairs.append((path, write_mat(tmp_path / f"{name}.mat", labels, boundaries=[line])))
    heard = []
    score = score_edge_maps(pairs, 1, lambda done, of: heard.append((done, of)))
    assert heard == [(1, 3), (2, 3), (3, 3)]
    assert (score.n_images, score.ods, score.ois) == (3, 1, 1)
    write_edge_map(pairs[0][0], line.T)
    with pytest.raises(EvaluationError, match=r"a\.png: \(80, 60\) is not the size of a\.mat"):
        score_edge_maps(pairs, 1, lambda done, of: None)
