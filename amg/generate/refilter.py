"""Other filters for masks that are stored already: which changes are exact, and how they are made.

Exact means the masks that a fresh run with the changed parameters gives. With the candidates that
NMS chose from, every filter can be done again, if only scores are filtered no more loosely. Without
them NMS cannot: its greedy choice is not monotone, for a mask that goes may have suppressed another
that was never stored. What does hold for the final masks alone:

- Predicted IoU, tighter: NMS inside a crop goes by predicted IoU, so a mask that goes suppressed
  only masks that go too. So does mask NMS. NMS between crops goes by the crop's size, and NMS after
  cleaning by what cleaning left unchanged: after either, no.
- Mask NMS or cleaning that the run did without: their input is stored, unless the run has filtered
  areas, which come later, or, for cleaning, has done mask NMS.
- Areas, tighter, come after every NMS: always. Parents are found anew.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np

from amg.config import GeneratorConfig
from amg.errors import ConfigError
from amg.generate.selection import select_masks, suppress_in_crops
from amg.records import Mask

_SCORES = ("pred_iou_thresh", "stability_score_thresh")
# What filters more: a higher value, or a lower one.
_TIGHTER_ABOVE = (*_SCORES, "min_mask_region_area", "min_area")
_TIGHTER_BELOW = (
    "box_nms_thresh",
    "crop_nms_thresh",
    "mask_nms_thresh",
    "max_area",
    "max_area_fraction",
)
_FREE = ("find_parents", "parent_containment", "keep_candidates")
CHANGEABLE = (*_TIGHTER_ABOVE, *_TIGHTER_BELOW, *_FREE)
"""The parameters that choose among masks. All others decide which masks there are."""


def _always(_: GeneratorConfig) -> bool:
    return True


def _has_crops(config: GeneratorConfig) -> bool:
    return config.crop_n_layers > 0


def _cleans(config: GeneratorConfig) -> bool:
    return config.min_mask_region_area > 0


def _compares_masks(config: GeneratorConfig) -> bool:
    return config.mask_nms_thresh < 1


def _filters_areas(config: GeneratorConfig) -> bool:
    return config.min_area > 0 or config.max_area is not None or config.max_area_fraction < 1


_NEVER_STORED = "a mask that goes may have suppressed another, which was never stored"
_AREAS = "masks that the run's filters of area removed may have suppressed others"
_OBSTACLES = (
    ("pred_iou_thresh", _has_crops, f"NMS between crops does not go by it: {_NEVER_STORED}"),
    ("pred_iou_thresh", _cleans, f"NMS after cleaning does not go by it: {_NEVER_STORED}"),
    ("stability_score_thresh", _always, _NEVER_STORED),
    ("box_nms_thresh", _always, _NEVER_STORED),
    ("crop_nms_thresh", _has_crops, _NEVER_STORED),
    ("crop_nms_thresh", _cleans, f"NMS after cleaning goes by it too: {_NEVER_STORED}"),
    ("min_mask_region_area", _cleans, "the masks before they were cleaned were not stored"),
    ("min_mask_region_area", _compares_masks, "mask NMS comes later, and has been done"),
    ("min_mask_region_area", _filters_areas, _AREAS),
    ("mask_nms_thresh", _compares_masks, _NEVER_STORED),
    ("mask_nms_thresh", _filters_areas, _AREAS),
)
"""A parameter, the runs on whose final masks a tighter value of it is not exact, and why not."""


def change_filters(source: GeneratorConfig, changes: Mapping[str, Any]) -> GeneratorConfig:
    """The parameters of a run with some changed.

    Raises ConfigError for those that are not `CHANGEABLE`, or would need masks that the run has not
    stored.
    """
    others = [key for key in changes if key not in CHANGEABLE]
    if others:
        raise ConfigError(*(f"{key}: decides which masks are made: run again" for key in others))
    wanted = GeneratorConfig(**{**source.model_dump(), **changes})
    if problems := list(_impossible(source, wanted)):
        raise ConfigError(*problems)
    return wanted


def _impossible(source: GeneratorConfig, wanted: GeneratorConfig) -> Iterator[str]:
    """What asks for masks that are nowhere."""
    if wanted.keep_candidates and not source.keep_candidates:
        yield "keep_candidates: the run has kept none"
    for key in (*_TIGHTER_ABOVE, *_TIGHTER_BELOW):
        stored = source.keep_candidates and key not in _SCORES
        was, now = getattr(source, key), getattr(wanted, key)
        if not stored and _tightness(source, key) > _tightness(wanted, key):
            yield f"{key}: {now} is looser than the run's {was}: what that removed was not stored"


def _tightness(config: GeneratorConfig, key: str) -> float:
    value = getattr(config, key)
    value = inf if value is None else value
    return value if key in _TIGHTER_ABOVE else -value


def inexact_changes(source: GeneratorConfig, wanted: GeneratorConfig) -> list[str]:
    """Why masks may not be those of a fresh run, a line for each reason; nothing if they are.

    wanted: of `change_filters`.
    """
    if source.keep_candidates:
        return []
    return [
        f"{key}: {reason}"
        for key, stands, reason in _OBSTACLES
        if getattr(source, key) != getattr(wanted, key) and stands(source)
    ]


def refilter(
    masks: Sequence[Mask],
    candidates: Sequence[Mask] | None,
    size_hw: tuple[int, int],
    source: GeneratorConfig,
    wanted: GeneratorConfig,
) -> tuple[list[Mask], list[Mask] | None]:
    """An image's stored masks, and candidates, as `wanted` would have them; size_hw is the image's.

    source: what they were made with; wanted: of `change_filters`. Candidates, if there are any,
    decide alone.
    """
    if candidates is not None:
        passed = with_scores(candidates, wanted)
        chosen = suppress_in_crops(passed, wanted.box_nms_thresh)
        kept = passed if wanted.keep_candidates else None
        return select_masks(chosen, size_hw, wanted), kept
    chosen = [replace(mask, parent=None) for mask in with_scores(masks, wanted)]
    if wanted.box_nms_thresh != source.box_nms_thresh:
        chosen = suppress_in_crops(chosen, wanted.box_nms_thresh)
    return select_masks(chosen, size_hw, _left_to_do(source, wanted)), None


def _left_to_do(source: GeneratorConfig, wanted: GeneratorConfig) -> GeneratorConfig:
    """What has been done is not done again: it may change the order, if nothing else."""
    done: dict[str, Any] = {}
    if wanted.crop_nms_thresh == source.crop_nms_thresh:
        done["crop_n_layers"] = 0
    if wanted.min_mask_region_area == source.min_mask_region_area:
        done["min_mask_region_area"] = 0
    return wanted.model_copy(update=done)


def with_scores(masks: Sequence[Mask], config: GeneratorConfig) -> list[Mask]:
    """Those that pass by predicted IoU and stability: in float32, as the generator compares."""
    keep = np.ones(len(masks), np.bool_)
    if config.pred_iou_thresh > 0:
        predicted_iou = np.array([mask.predicted_iou for mask in masks], np.float32)
        keep &= predicted_iou > np.float32(config.pred_iou_thresh)
    if config.stability_score_thresh > 0:
        stability = np.array([mask.stability_score for mask in masks], np.float32)
        keep &= stability >= np.float32(config.stability_score_thresh)
    return [masks[i] for i in np.flatnonzero(keep).tolist()]
