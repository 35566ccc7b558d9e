"""Average precision of masks that have categories, as COCO measures detectors.

Source: `COCOeval` of pycocotools, over all areas, with 100 masks of a category an image.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from amg.evaluate.coco_truth import Annotation
from amg.evaluate.iou import pairwise_iou, validated
from amg.evaluate.matching import IOU_THRESHOLDS
from amg.evaluate.results import CategoryScore
from amg.records import Mask, Rle

_MOST_MASKS = 100
_RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True, slots=True)
class Detections:
    """The masks of one category in one image of COCO's number `image_id`, best first.

    `scores` (D,); `is_found` and `is_ignored` (T, D), at each IoU threshold whether a mask found an
    instance, and whether that is a crowd, so that the mask counts for nothing.
    """

    image_id: int
    n_instances: int
    scores: np.ndarray
    is_found: np.ndarray
    is_ignored: np.ndarray


def category_ids(names: Iterable[str], truth: Mapping[int, str]) -> dict[str, int]:
    """The truth's numbers of a run's categories: by name, or where the name is the number."""
    by_name = {name: number for number, name in truth.items()}
    by_name = {str(number): number for number in truth} | by_name
    return {name: by_name[name] for name in names if name in by_name}


def detect(
    masks: Sequence[Mask],
    image_id: int,
    instances: Sequence[Annotation],
    shapes: Sequence[Rle],
    ids: Mapping[str, int],
) -> dict[int, Detections]:
    """What an image's masks find of each category that it has masks or instances of.

    shapes: the instances' run lengths; ids: the numbers of the masks' categories.
    """
    numbers = [ids.get(mask.category or "") for mask in masks]
    there = {instance.category_id for instance in instances}
    return {
        number: _detect(
            [mask for mask, of in zip(masks, numbers, strict=True) if of == number],
            image_id,
            [i for i, instance in enumerate(instances) if instance.category_id == number],
            instances,
            shapes,
        )
        for number in sorted(there | {number for number in numbers if number is not None})
    }


def _detect(
    masks: Sequence[Mask],
    image_id: int,
    own: Sequence[int],
    instances: Sequence[Annotation],
    shapes: Sequence[Rle],
) -> Detections:
    scores = np.array([m.predicted_iou if m.score is None else m.score for m in masks])
    order = np.argsort(-scores, kind="stable")[:_MOST_MASKS]
    own = sorted(own, key=lambda i: instances[i].is_crowd)
    is_crowd = np.array([instances[i].is_crowd for i in own], bool)
    found = [masks[i] for i in order]
    ious = pairwise_iou(validated(found), [shapes[i] for i in own], is_crowd.astype(int).tolist())
    is_found, is_ignored = _match(ious, is_crowd)
    n_instances = int((~is_crowd).sum())
    return Detections(image_id, n_instances, scores[order], is_found, is_ignored)


def _match(ious: np.ndarray, is_crowd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Masks in turn take the most similar instance that is left; else a crowd, which many may.

    ious: (D, G), crowds last. Gives (T, D) bool twice: what found any, and what found a crowd.
    """
    n_masks, n_instances = ious.shape
    is_found = np.zeros((len(IOU_THRESHOLDS), n_masks), bool)
    is_ignored = np.zeros_like(is_found)
    for t, threshold in enumerate(np.minimum(IOU_THRESHOLDS, 1 - 1e-10)):
        is_free = np.ones(n_instances, bool)
        for d in range(n_masks):
            fits = is_free & (ious[d] >= threshold)
            if (fits & ~is_crowd).any():
                fits &= ~is_crowd
            if not fits.any():
                continue
            similar = np.where(fits, ious[d], -1.0)
            chosen = n_instances - 1 - int(similar[::-1].argmax())  # of equals the last
            is_found[t, d] = True
            is_ignored[t, d] = is_crowd[chosen]
            is_free[chosen] = is_crowd[chosen]
    return is_found, is_ignored


def summarise_precision(
    images: Iterable[Mapping[int, Detections]], names: Mapping[int, str]
) -> list[CategoryScore]:
    """Average precision of each category that has instances, by number, over images."""
    by_category: dict[int, list[Detections]] = {}
    for image in images:
        for number, detections in image.items():
            by_category.setdefault(number, []).append(detections)
    return [
        _score(names.get(number, str(number)), sorted(some, key=lambda d: d.image_id))
        for number, some in sorted(by_category.items())
        if any(detections.n_instances for detections in some)
    ]


def _score(name: str, images: Sequence[Detections]) -> CategoryScore:
    n_instances = sum(detections.n_instances for detections in images)
    scores = np.concatenate([detections.scores for detections in images])
    order = np.argsort(-scores, kind="stable")
    is_found = np.concatenate([d.is_found for d in images], axis=1)[:, order]
    counts = ~np.concatenate([d.is_ignored for d in images], axis=1)[:, order]
    right = np.cumsum(is_found & counts, axis=1)
    wrong = np.cumsum(~is_found & counts, axis=1)
    precision = [
        _average(found / n_instances, found / np.maximum(found + missed, np.spacing(1)))
        for found, missed in zip(right, wrong, strict=True)
    ]
    return CategoryScore(
        category=name,
        n_instances=n_instances,
        n_masks=len(scores),
        average_precision=float(np.mean(precision)),
        at_half=float(precision[0]),
        at_three_quarters=float(precision[5]),
    )


def _average(recall: np.ndarray, precision: np.ndarray) -> float:
    """The best precision at each of 101 recalls or more, and its mean."""
    best = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, _RECALLS, "left")
    reached = places < len(best)
    return float(best[places[reached]].sum() / len(_RECALLS))
