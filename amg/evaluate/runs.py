"""Two runs over the same images: what one has and the other lacks.

For precisions, grids and models that are not meant to give the same masks, and as a proof for
those that are. The other run is the reference.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from amg.evaluate.iou import pairwise_iou, validated
from amg.evaluate.matching import match_pairs
from amg.evaluate.parity import MIN_IOU_FOUND, ParityReport, compare_masks
from amg.evaluate.results import Comparison, ImageDifference
from amg.evaluate.shards import ImageScore, ShardTask, check_size, score_shard
from amg.records import Mask
from amg.runs.schema import ImageRow
from amg.runs.shards import read_rows
from amg.storage.patient import open_patiently

MIN_IOU_MATCHED = 0.5
_QUANTILES = (0.01, 0.1, 0.5)
_N_WORST = 10


@dataclass(frozen=True, slots=True)
class RowPlace:
    """Where the reference's row of an image is: in which file of which run, and which row."""

    out: str
    file: str
    place: int


@dataclass(frozen=True, slots=True)
class ImageComparison:
    """Two lists of masks of one image.

    `best_ious` (M,): of each of the reference's masks with the most similar of ours;
    `matched_ious` (P,): of the pairs, one to one, that overlap by half or more.
    """

    image_id: str
    parity: ParityReport
    best_ious: np.ndarray
    matched_ious: np.ndarray

    @property
    def n_missing(self) -> int:
        """Masks of the reference that we have no partner for."""
        return self.parity.n_reference - len(self.matched_ious)

    @property
    def n_extra(self) -> int:
        """Masks of ours that the reference has no partner for."""
        return self.parity.n_ours - len(self.matched_ious)


@dataclass(frozen=True, slots=True)
class RunJudge:
    """Compares an image's masks with those of the other run's row."""

    def __call__(self, row: ImageRow, truth: ImageRow) -> ImageComparison:
        """Compare one image. Raises RleError for run lengths that are not valid."""
        if truth.height is not None and truth.width is not None:
            check_size(row, (truth.height, truth.width))
        reference, ours = (
            [replace(mask, rle=shape) for mask, shape in zip(masks, validated(masks), strict=True)]
            for masks in (truth.masks, row.masks)
        )
        return compare_images(row.image_id, reference, ours)


def compare_shard(task: ShardTask[RowPlace, ImageComparison]) -> list[ImageScore[ImageComparison]]:
    """Compare the rows of one file with the other run's, which may be in several."""
    ids_by_file: defaultdict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    for image_id, theirs in task.truths.items():
        ids_by_file[theirs.out, theirs.file][theirs.place] = image_id
    rows: dict[str, ImageRow] = {}  # by our ids: the other run's may have another root or suffix
    for (out, name), ids in ids_by_file.items():
        places = sorted(ids)
        with open_patiently(out).open(name) as file:
            found = zip(places, read_rows(file, name, places), strict=True)
            rows.update((ids[place], row) for place, row in found)
    return score_shard(ShardTask(task.out, task.file, rows, RunJudge()))


def compare_images(
    image_id: str, reference: Sequence[Mask], ours: Sequence[Mask]
) -> ImageComparison:
    """Compare two lists of masks of one image, whose run lengths are valid."""
    ious = pairwise_iou([mask.rle for mask in reference], [mask.rle for mask in ours])
    rows, columns = match_pairs(ious, MIN_IOU_MATCHED)
    return ImageComparison(
        image_id=image_id,
        parity=compare_masks(reference, ours),
        best_ious=ious.max(axis=1, initial=0.0),
        matched_ious=ious[rows, columns],
    )


def summarise_comparisons(images: Iterable[ImageComparison]) -> Comparison:
    """Add up what was found in images."""
    images = list(images)
    reports = [image.parity for image in images]
    best = np.concatenate([np.zeros(0), *(image.best_ious for image in images)])
    matched = np.concatenate([np.zeros(0), *(image.matched_ious for image in images)])
    quantiles = np.quantile(best, _QUANTILES) if len(best) else ()
    return Comparison(
        n_images=len(images),
        n_exact=sum(report.exact for report in reports),
        n_reference=sum(report.n_reference for report in reports),
        n_ours=sum(report.n_ours for report in reports),
        n_identical=sum(report.n_identical for report in reports),
        n_found=int((best >= MIN_IOU_FOUND).sum()),
        n_matched=len(matched),
        n_missing=sum(image.n_missing for image in images),
        n_extra=sum(image.n_extra for image in images),
        mean_matched_iou=float(matched.mean()) if len(matched) else None,
        mean_best_iou=float(best.mean()) if len(best) else None,
        best_iou_quantiles=dict(zip(_QUANTILES, map(float, quantiles), strict=False)),
        min_twin_iou=min((report.min_iou for report in reports), default=1.0),
        max_score_difference=max((r.max_score_difference for r in reports), default=0.0),
        max_box_difference_px=max((r.max_box_difference_px for r in reports), default=0.0),
        worst=_worst(images),
    )


def _worst(images: Sequence[ImageComparison]) -> tuple[ImageDifference, ...]:
    differing = [image for image in images if image.n_missing + image.n_extra]
    differing.sort(key=lambda image: -(image.n_missing + image.n_extra))
    return tuple(
        ImageDifference(
            image.image_id,
            image.parity.n_reference,
            image.parity.n_ours,
            image.n_missing,
            image.n_extra,
        )
        for image in differing[:_N_WORST]
    )
