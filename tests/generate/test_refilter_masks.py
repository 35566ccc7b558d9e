"""Filters on stored masks, against the same filters from the start."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from amg import ConfigError, GeneratorConfig
from amg.generate.refilter import (
    _OBSTACLES,
    CHANGEABLE,
    change_filters,
    inexact_changes,
    refilter,
    with_scores,
)
from amg.generate.selection import select_masks, suppress_in_crops
from tests.generate.make_masks import random_masks

SIZE_HW = (12, 14)
CROPS = [((0, 0, 14, 12), 0), ((0, 0, 8, 7), 1), ((0, 5, 8, 7), 1), ((6, 0, 8, 7), 1)]
VALUES = {
    "pred_iou_thresh": [0.0, 0.2, 0.3, 0.6],
    "stability_score_thresh": [0.0, 0.5, 0.7, 0.9],
    "box_nms_thresh": [1.0, 0.7, 0.4, 0.1],
    "crop_n_layers": [0, 1],
    "crop_nms_thresh": [1.0, 0.6, 0.2],
    "min_mask_region_area": [0, 4, 9],
    "mask_nms_thresh": [1.0, 0.6, 0.2],
    "min_area": [0, 4, 12],
    "max_area": [None, 100, 40],
    "max_area_fraction": [1.0, 0.5, 0.2],
    "find_parents": [False, True],
    "parent_containment": [0.95, 0.5],
}
configs = st.fixed_dictionaries({key: st.sampled_from(values) for key, values in VALUES.items()})
# Few at once: among many there is nearly always one that is not exact.
some_keys = st.sets(st.sampled_from(CHANGEABLE), min_size=1, max_size=2)


def _candidates(seed, config):
    """Masks as prompts give them, crop by crop, of few scores: there are ties."""
    rng = np.random.default_rng(seed)
    masks = random_masks(seed, int(rng.integers(1, 25)), SIZE_HW)
    crops = sorted(rng.integers(0, len(CROPS) if config.crop_n_layers else 1, len(masks)))
    return [
        replace(
            mask,
            stability_score=rng.choice([0.5, 0.75, 0.95]),
            crop_box_xywh=CROPS[i][0],
            crop_layer=CROPS[i][1],
        )
        for mask, i in zip(masks, crops, strict=True)
    ]


def _fresh(candidates, config):
    """What a run with these parameters gives."""
    chosen = suppress_in_crops(with_scores(candidates, config), config.box_nms_thresh)
    return select_masks(chosen, SIZE_HW, config)


def _refilter(candidates, source, wanted):
    """What is made of a run's final masks."""
    return refilter(_fresh(candidates, source), None, SIZE_HW, source, wanted)[0]


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 10**6), configs, configs, some_keys)
def test_what_is_called_exact_gives_the_masks_of_a_fresh_run(seed, was, now, keys):
    source = GeneratorConfig(**was)
    try:
        wanted = change_filters(source, {k: v for k, v in now.items() if k in keys})
    except ConfigError:
        assume(False)
    assume(not inexact_changes(source, wanted))
    candidates = _candidates(seed, source)
    assert _refilter(candidates, source, wanted) == _fresh(candidates, wanted)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 10**6), configs, configs)
def test_with_candidates_every_filter_is_exact(seed, was, now):
    source = GeneratorConfig(**was, keep_candidates=True)
    scores = {key: max(was[key], now[key]) for key in ("pred_iou_thresh", "stability_score_thresh")}
    changed = {key: value for key, value in now.items() if key in CHANGEABLE}
    wanted = change_filters(source, {**changed, **scores})
    assert inexact_changes(source, wanted) == []
    candidates = _candidates(seed, source)
    stored = with_scores(candidates, source)
    masks, kept = refilter(_fresh(candidates, source), stored, SIZE_HW, source, wanted)
    assert masks == _fresh(candidates, wanted)
    assert kept == with_scores(candidates, wanted)
    dropped = wanted.model_copy(update={"keep_candidates": False})
    assert refilter([], stored, SIZE_HW, source, dropped) == (masks, None)


# Runs to which an obstacle applies, and a change that it forbids.
FORBIDDEN = {
    0: ({"crop_n_layers": 1}, {"pred_iou_thresh": 0.6}),
    1: (
        {"min_mask_region_area": 9, "box_nms_thresh": 0.4, "crop_nms_thresh": 0.0},
        {"pred_iou_thresh": 0.6},
    ),
    2: ({}, {"stability_score_thresh": 0.9}),
    3: ({}, {"box_nms_thresh": 0.1}),
    4: ({"crop_n_layers": 1}, {"crop_nms_thresh": 0.1}),
    5: ({"min_mask_region_area": 4, "box_nms_thresh": 0.5}, {"crop_nms_thresh": 0.1}),
    6: ({"min_mask_region_area": 4}, {"min_mask_region_area": 9}),
    7: ({"mask_nms_thresh": 0.5, "box_nms_thresh": 0.9}, {"min_mask_region_area": 9}),
    8: ({"max_area": 20, "box_nms_thresh": 0.9}, {"min_mask_region_area": 9}),
    9: ({"mask_nms_thresh": 0.5, "box_nms_thresh": 0.9}, {"mask_nms_thresh": 0.1}),
    10: ({"max_area": 60, "box_nms_thresh": 0.9}, {"mask_nms_thresh": 0.1}),
}


@pytest.mark.parametrize("index", range(len(_OBSTACLES)))
def test_what_is_called_inexact_may_give_others(index):
    loose = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
    was, change = FORBIDDEN[index]
    source = GeneratorConfig(**{**loose, **was})
    wanted = change_filters(source, change)
    key, _, reason = _OBSTACLES[index]
    assert inexact_changes(source, wanted) == [f"{key}: {reason}"]

    def differ(seed):
        candidates = _candidates(seed, source)
        return _refilter(candidates, source, wanted) != _fresh(candidates, wanted)

    assert any(differ(seed) for seed in range(1000))


@pytest.mark.parametrize(
    ("was", "change", "said"),
    [
        ({}, {"pred_iou_thresh": 0.5}, "pred_iou_thresh: 0.5 is looser than the run's 0.88"),
        ({}, {"stability_score_thresh": 0.5}, "stability_score_thresh: 0.5 is looser"),
        ({}, {"box_nms_thresh": 0.9}, "box_nms_thresh: 0.9 is looser"),
        ({}, {"crop_nms_thresh": 0.9}, "crop_nms_thresh: 0.9 is looser"),
        ({"mask_nms_thresh": 0.5}, {"mask_nms_thresh": 1.0}, "mask_nms_thresh: 1.0 is looser"),
        ({"min_area": 9}, {"min_area": 8}, "min_area: 8 is looser than the run's 9"),
        ({"max_area": 9}, {"max_area": 10}, "max_area: 10 is looser than the run's 9"),
        ({"max_area_fraction": 0.5}, {"max_area_fraction": 0.6}, "max_area_fraction: 0.6 is loo"),
        ({"min_mask_region_area": 9}, {"min_mask_region_area": 0}, "min_mask_region_area: 0 is"),
        ({}, {"keep_candidates": True}, "keep_candidates: the run has kept none"),
        ({}, {"points_per_side": 8}, "points_per_side: decides which masks are made: run again"),
        ({}, {"no_such_key": 8}, "no_such_key: "),
        ({}, {"min_area": -1}, "min_area: "),
    ],
)
def test_what_cannot_be_made_of_stored_masks_is_refused(was, change, said):
    with pytest.raises(ConfigError, match=said):
        change_filters(GeneratorConfig(**was), change)


def test_candidates_allow_looser_nms_but_no_looser_scores():
    source = GeneratorConfig(keep_candidates=True, min_mask_region_area=9)
    loose = {"box_nms_thresh": 1.0, "crop_nms_thresh": 0.9, "min_mask_region_area": 0}
    assert inexact_changes(source, change_filters(source, loose)) == []
    with pytest.raises(ConfigError, match=r"pred_iou_thresh: 0\.5 is looser"):
        change_filters(source, {"pred_iou_thresh": 0.5})


@pytest.mark.parametrize(
    ("threshold", "n_kept"), [(0.7, 2), (float(np.float32(0.7)), 2), (0.75, 0)]
)
def test_scores_are_compared_in_float32_as_the_generator_does(threshold, n_kept):
    (mask,) = random_masks(1, 1)
    score = float(np.float32(0.7))  # as it is read back: below 0.7
    make = partial(replace, mask, stability_score=score)
    masks = [make(predicted_iou=0.9), make(predicted_iou=0.8)]
    config = GeneratorConfig(pred_iou_thresh=0.5, stability_score_thresh=threshold)
    assert len(with_scores(masks, config)) == n_kept
    equal = GeneratorConfig(pred_iou_thresh=float(np.float32(0.8)), stability_score_thresh=0)
    assert len(with_scores(masks, equal)) == 1


def test_parents_that_are_not_wanted_any_more_go():
    source = GeneratorConfig(find_parents=True, parent_containment=0.3)
    masks = _fresh([replace(m, predicted_iou=0.9) for m in random_masks(2, 20, SIZE_HW)], source)
    assert any(mask.parent is not None for mask in masks)
    without = refilter(
        masks, None, SIZE_HW, source, change_filters(source, {"find_parents": False})
    )
    assert all(mask.parent is None for mask in without[0])
