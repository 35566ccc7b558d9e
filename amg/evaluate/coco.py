"""How well masks find the instances of COCO or LVIS: whatever their category, and by it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from amg.errors import EvaluationError
from amg.evaluate.calibration import ScoredMasks, scored_masks
from amg.evaluate.coco_truth import Annotation, CocoImage, Frequency, annotation_rle
from amg.evaluate.iou import pairwise_iou, validated
from amg.evaluate.precision import Detections, detect
from amg.evaluate.ranking import Rank, ranked
from amg.evaluate.recall import Limits, RecallCounts, summarise_recall
from amg.evaluate.results import AverageRecall
from amg.evaluate.shards import check_size
from amg.ops import rle
from amg.runs.schema import ImageRow

ALL = "all"
_AREAS_PX: Mapping[str, tuple[float, float]] = {
    ALL: (0, 1e10),
    "small": (0, 32**2),
    "medium": (32**2, 96**2),
    "large": (96**2, 1e10),
}
_FREQUENCIES: tuple[Frequency, ...] = ("frequent", "common", "rare")


@dataclass(frozen=True, slots=True)
class CocoImageScore:
    """What one image adds: counts for each group of instances, and masks with their true IoU.

    `detections` are by category, where these are measured.
    """

    recall: Mapping[str, RecallCounts]
    masks: ScoredMasks
    detections: Mapping[int, Detections]


@dataclass(frozen=True, slots=True)
class CocoJudge:
    """Compares an image's masks with its instances.

    `frequencies`: of LVIS's categories by id; empty for COCO. `categories`: the ids of those that
    the run's masks have; empty where categories are not measured.
    """

    rank: Rank
    limits: Limits
    frequencies: Mapping[int, Frequency]
    categories: Mapping[str, int] = field(default_factory=dict)

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups of instances that recall is measured for."""
        return (*_AREAS_PX, *(_FREQUENCIES if self.frequencies else ()))

    def __call__(self, row: ImageRow, truth: CocoImage) -> CocoImageScore:
        """Score one image. Raises RleError and EvaluationError for shapes that are not valid."""
        check_size(row, truth.size_hw)
        masks = ranked(row.masks, self.rank)
        # Crowds are no instances that a mask could find.
        own = [annotation for annotation in truth.annotations if not annotation.is_crowd]
        shapes = [annotation_rle(annotation, truth.size_hw) for annotation in own]
        areas = np.array(
            [
                rle.area(shape) if annotation.area is None else annotation.area
                for annotation, shape in zip(own, shapes, strict=True)
            ]
        )
        ious = pairwise_iou(validated(masks), shapes)
        recall = {
            group: RecallCounts.of(ious[:, self._is_in(group, own, areas)], self.limits)
            for group in self.groups
        }
        detections: dict[int, Detections] = {}
        if self.categories:
            every = truth.annotations
            crowds_too = [annotation_rle(annotation, truth.size_hw) for annotation in every]
            detections = detect(row.masks, truth.image_id, every, crowds_too, self.categories)
        return CocoImageScore(recall, scored_masks(masks, ious), detections)

    def _is_in(self, group: str, instances: list[Annotation], areas: np.ndarray) -> np.ndarray:
        """Which of the instances belong to a group, (G,) bool; limits of area belong to both."""
        if group in _AREAS_PX:
            least, most = _AREAS_PX[group]
            return (areas >= least) & (areas <= most)
        try:
            found = [self.frequencies[instance.category_id] for instance in instances]
        except KeyError as error:
            raise EvaluationError(f"category {error} has no frequency") from None
        return np.array([frequency == group for frequency in found], dtype=bool)

    def summarise(self, scores: Iterable[CocoImageScore]) -> list[AverageRecall]:
        """Average recall of each group over images, at each limit."""
        totals = {group: RecallCounts.none(len(self.limits)) for group in self.groups}
        for score in scores:
            for group, counts in score.recall.items():
                totals[group] += counts
        return [
            line
            for group, counts in totals.items()
            for line in summarise_recall(group, counts, self.limits)
        ]
