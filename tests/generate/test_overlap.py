"""Copies by mask IoU and parents, against the definition, pixel by pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amg.generate import overlap
from amg.generate.overlap import find_parents, suppress_overlapping
from amg.ops import rle
from tests.generate.make_masks import make_mask, random_masks, rectangle

SEEDS = st.integers(0, 100_000)
SHARES = st.sampled_from([0.2, 0.5, 0.75, 0.95, 1.0])


def _bits(masks):
    return [rle.decode(mask.rle) for mask in masks]


def _parents(masks):
    return [mask.parent for mask in masks]


def _iou(a, b):
    return (a & b).sum() / max(1, (a | b).sum())


@settings(deadline=None)
@given(SEEDS, st.integers(0, 12), SHARES)
def test_copies_go_best_score_first(seed, n, threshold):
    masks = random_masks(seed, n)
    bits = _bits(masks)
    kept = []
    for i in sorted(range(n), key=lambda i: -masks[i].predicted_iou):
        if all(_iou(bits[i], bits[j]) <= threshold for j in kept):
            kept.append(i)
    assert suppress_overlapping(masks, threshold) == [masks[i] for i in sorted(kept)]


@settings(deadline=None)
@given(SEEDS, st.integers(0, 12), SHARES)
def test_parents_are_the_smallest_that_contain(seed, n, containment):
    masks = random_masks(seed, n)
    bits = _bits(masks)
    found = find_parents(masks, containment)
    for i, mask in enumerate(found):
        around = [
            j
            for j in range(n)
            if 0 < masks[i].area < masks[j].area
            and (bits[i] & bits[j]).sum() / masks[i].area >= containment
        ]
        expected = min(around, key=lambda j: (masks[j].area, j), default=None)
        assert mask.parent == expected


@settings(deadline=None)
@given(SEEDS, st.integers(0, 20))
def test_no_mask_is_its_own_ancestor(seed, n):
    masks = find_parents(random_masks(seed, n), 0.2)
    assert all(m.parent is None or masks[m.parent].area > m.area for m in masks)
    for mask in masks:
        ancestors = set()
        parent = mask.parent
        while parent is not None:
            assert parent not in ancestors
            ancestors.add(parent)
            parent = masks[parent].parent


def test_a_known_family():
    house, wall = rectangle(5, 5, 55, 35), rectangle(10, 10, 40, 30)
    window, pane = rectangle(15, 15, 25, 25), rectangle(16, 16, 20, 20)
    apart, half_out = rectangle(0, 36, 60, 40), rectangle(36, 12, 44, 16)
    bits = [pane, house, window, apart, wall, half_out]
    masks = find_parents([make_mask(b) for b in bits], 0.95)
    assert _parents(masks) == [2, None, 4, None, 1, 1]
    halves = find_parents([make_mask(b) for b in bits], 0.5)
    assert _parents(halves) == [2, None, 4, None, 1, 4]


def test_equal_masks_are_siblings():
    whole, part = rectangle(0, 0, 30, 30), rectangle(5, 5, 10, 10)
    masks = find_parents([make_mask(b) for b in (whole, part, whole, part)], 0.95)
    assert _parents(masks) == [None, 0, None, 0]


@pytest.mark.parametrize("at_once", [1, 7, 40])
def test_how_many_boxes_are_compared_at_once_changes_nothing(monkeypatch, at_once):
    masks = random_masks(3, 30)
    expected = find_parents(masks, 0.5), suppress_overlapping(masks, 0.5)
    monkeypatch.setattr(overlap, "_PAIRS_AT_ONCE", at_once)
    assert (find_parents(masks, 0.5), suppress_overlapping(masks, 0.5)) == expected


def test_a_frame_and_what_it_holds_are_no_copies():
    """Their boxes are the same, which is why masks may be asked instead."""
    hole = rectangle(2, 2, 38, 38)
    frame = rectangle(0, 0, 40, 40) & ~hole
    masks = [make_mask(frame, 0.9), make_mask(hole, 0.8), make_mask(hole, 0.7)]
    assert suppress_overlapping(masks, 0.8) == masks[:2]
    assert np.array_equal(*_bits(masks[1:]))
