import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from amg.evaluate.matching import match_pairs, match_ranked

IOUS = st.tuples(st.integers(0, 4), st.integers(0, 4)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.integers(0, 20).map(lambda n: n / 20))
)


def test_the_better_mask_chooses_first():
    ious = np.array([[0.7, 0.6], [0.9, 0.0]])
    taken_by = match_ranked(ious, np.array([0.5, 0.65, 0.8]))
    # At 0.5 and 0.65 the first mask takes what the second needs; at 0.8 it may not.
    assert taken_by.tolist() == [[0, 2], [0, 2], [1, 2]]


def test_of_equals_the_last_instance_is_taken():
    assert match_ranked(np.array([[0.6, 0.6]]), np.array([0.5])).tolist() == [[1, 0]]


@given(IOUS)
def test_the_first_masks_find_the_same_without_the_others(ious):
    n_masks = len(ious)
    taken_by = match_ranked(ious)
    for k in range(n_masks):
        alone = match_ranked(ious[:k])
        np.testing.assert_array_equal(taken_by < k, alone < k)


@given(IOUS)
def test_pairs_have_the_greatest_sum(ious):
    rows, columns = match_pairs(ious, least=0.5)
    assert len(set(rows)) == len(rows)
    assert len(set(columns)) == len(columns)
    assert (ious[rows, columns] >= 0.5).all()
    allowed = np.where(ious >= 0.5, ious, 0)
    wide = allowed if ious.shape[0] <= ious.shape[1] else allowed.T
    best = max(
        sum(wide[i, j] for i, j in enumerate(order))
        for order in itertools.permutations(range(wide.shape[1]), wide.shape[0])
    )
    assert np.isclose(ious[rows, columns].sum(), best)
