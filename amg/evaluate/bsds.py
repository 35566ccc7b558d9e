"""How well masks match what people drew on BSDS500: region covering and average recall."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from amg.evaluate.bsds_truth import read_drawings
from amg.evaluate.calibration import ScoredMasks, scored_masks
from amg.evaluate.iou import pairwise_iou, validated
from amg.evaluate.matching import IOU_THRESHOLDS
from amg.evaluate.ranking import Rank, ranked
from amg.evaluate.recall import Limits, best_ious
from amg.evaluate.results import RegionScore
from amg.evaluate.shards import check_size
from amg.ops import rle
from amg.runs.schema import ImageRow

_MIN_REGION_PX = 100


@dataclass(frozen=True, slots=True)
class BsdsImageScore:
    """Of one image, within each of K limits: `covering` (K,), `best_ious` (R, K).

    Covering is averaged over annotators; the R regions are all annotators' of 100 px or more.
    """

    covering: np.ndarray
    best_ious: np.ndarray
    n_masks: int
    masks: ScoredMasks


@dataclass(frozen=True, slots=True)
class BsdsJudge:
    """Compares an image's masks with the regions that people drew.

    Source of covering: "Contour Detection and Hierarchical Image Segmentation" (2011),
    section 3.1, with overlapping masks in place of a partition.
    """

    rank: Rank
    limits: Limits

    def __call__(self, row: ImageRow, truth: Path) -> BsdsImageScore:
        """Score one image against a file. Raises RleError or EvaluationError for damaged ones."""
        drawings = read_drawings(truth)
        height, width = drawings[0].labels.shape
        check_size(row, (height, width))
        masks = ranked(row.masks, self.rank)
        shapes = validated(masks)
        coverings, best, ious = [], [], []
        for drawing in drawings:
            regions = rle.encode_masks(drawing.regions)
            areas = np.array([rle.area(region) for region in regions])
            ious.append(pairwise_iou(shapes, regions))
            of_regions = best_ious(ious[-1], self.limits)
            coverings.append(areas @ of_regions / areas.sum())
            best.append(of_regions[areas >= _MIN_REGION_PX])
        return BsdsImageScore(
            covering=np.mean(coverings, axis=0),
            best_ious=np.concatenate(best),
            n_masks=len(masks),
            masks=scored_masks(masks, np.concatenate(ious, axis=1)),
        )

    def summarise(self, scores: Iterable[BsdsImageScore]) -> list[RegionScore]:
        """Means over images, and recall over all their regions, within each limit."""
        scores = list(scores)
        best = np.concatenate([score.best_ious for score in scores])
        coverings = np.mean([score.covering for score in scores], axis=0)
        counts = np.array([score.n_masks for score in scores])
        return [
            RegionScore(
                max_masks=limit,
                n_images=len(scores),
                n_regions=len(best),
                masks_per_image=float((counts if limit is None else counts.clip(max=limit)).mean()),
                covering=float(coverings[k]),
                average_recall=float((best[:, k, None] >= IOU_THRESHOLDS).mean()),
                mean_best_iou=float(best[:, k].mean()),
            )
            for k, limit in enumerate(self.limits)
        ]
