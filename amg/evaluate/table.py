"""An evaluation in words and tables, for a terminal and for the report page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from amg.evaluate.results import (
    AverageRecall,
    CategoryScore,
    Comparison,
    EdgeScore,
    Evaluation,
    PartnerCounts,
    RegionScore,
    ScoreCalibration,
)


@dataclass(frozen=True, slots=True)
class Listing:
    """A table: what its columns are called, and its cells, row by row."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def notes(evaluation: Evaluation) -> Iterator[str]:
    """How many images were compared, and what was left out, a sentence each."""
    yield from _notes(evaluation.partners, evaluation.is_complete)


def result_listings(evaluation: Evaluation) -> Iterator[Listing]:
    """What came of it, calibration apart."""
    if evaluation.recall is not None:
        yield _recall_listing(evaluation.recall)
    if evaluation.categories:
        yield _category_listing(evaluation.categories)
    if evaluation.regions is not None:
        yield _region_listing(evaluation.regions)
    if evaluation.comparison is not None:
        yield _comparison_listing(evaluation.comparison)
    if evaluation.edges is not None:
        yield _edge_listing(evaluation.edges)


def calibration_listing(scores: Sequence[ScoreCalibration]) -> Listing:
    """Scores beside true IoU, and how they go together."""
    rows: list[list[str]] = []
    for score in scores:
        correlations = f"{_share(score.pearson)}, {_share(score.spearman)}"
        rows.append([score.score, str(score.n_masks), "", "", correlations])
        rows += [
            [
                f"  {part.low:.2f} to {part.high:.2f}",
                str(part.n_masks),
                _share(part.mean_score),
                _share(part.mean_iou),
                "",
            ]
            for part in score.wider_bins()
        ]
    head = ("score against true IoU", "masks", "mean score", "mean IoU", "Pearson, Spearman")
    return Listing(head, rows)


def _notes(partners: PartnerCounts, is_complete: bool) -> Iterator[str]:
    yield f"{_images(partners.n_compared)} compared."
    if not is_complete:
        yield "The run was not complete: images without a row then are left out."
    if partners.n_failed:
        yield f"{partners.n_failed:,} of them failed: they count as without masks."
    if partners.n_rows_alone:
        yield f"Left out: {_images(partners.n_rows_alone)} that the other side has not."
    if partners.n_truth_alone:
        yield f"Left out: {_images(partners.n_truth_alone)} of the other side without a row here."
    if partners.other_size:
        yield f"Left out: {_images(len(partners.other_size))} of another size there."


def _images(count: int) -> str:
    return f"{count:,} image{'' if count == 1 else 's'}"


def _recall_listing(lines: Sequence[AverageRecall]) -> Listing:
    """A row for each group of instances, columns for AR and mean best IoU at each limit."""
    limits = [line.max_masks for line in lines if line.group == lines[0].group]
    rows: list[list[str]] = []
    for start in range(0, len(lines), len(limits)):
        group = lines[start : start + len(limits)]
        recalls = [_share(line.average_recall) for line in group]
        best = _share(group[-1].mean_best_iou)
        rows.append([group[0].group, str(group[0].n_instances), *recalls, best])
    head = ["instances", "n", *(f"AR@{_limit(limit)}" for limit in limits), "mean best IoU"]
    return Listing(head, rows)


def _category_listing(lines: Sequence[CategoryScore]) -> Listing:
    """A row for all categories, the mean of theirs, and one for each."""
    rows = [
        [
            line.category,
            str(line.n_instances),
            str(line.n_masks),
            _share(line.average_precision),
            _share(line.at_half),
            _share(line.at_three_quarters),
        ]
        for line in lines
    ]
    means = (
        sum(line.average_precision for line in lines),
        sum(line.at_half for line in lines),
        sum(line.at_three_quarters for line in lines),
    )
    counts = sum(line.n_instances for line in lines), sum(line.n_masks for line in lines)
    total = ["all", *map(str, counts), *(_share(mean / len(lines)) for mean in means)]
    return Listing(
        ["category", "instances", "masks", "AP", "AP at .5", "AP at .75"], [total, *rows]
    )


def _region_listing(lines: Sequence[RegionScore]) -> Listing:
    rows = [
        [
            _limit(line.max_masks),
            f"{line.masks_per_image:.0f}",
            _share(line.covering),
            _share(line.average_recall),
            _share(line.mean_best_iou),
        ]
        for line in lines
    ]
    return Listing(["masks", "a photo", "covering", "AR", "mean best IoU"], rows)


def _comparison_listing(comparison: Comparison) -> Listing:
    values = {
        "masks of the reference": comparison.n_reference,
        "ours": comparison.n_ours,
        "identical, at the same place": comparison.n_identical,
        "of the reference, found with IoU 0.9": comparison.n_found,
        "matched one to one, with IoU 0.5": comparison.n_matched,
        "missing: of the reference alone": comparison.n_missing,
        "extra: of ours alone": comparison.n_extra,
        "mean IoU of matched": _share(comparison.mean_matched_iou, 4),
        "mean best IoU of the reference's": _share(comparison.mean_best_iou, 4),
        "images exact but for rounding": f"{comparison.n_exact} of {comparison.n_images}",
    }
    rows = [[name, str(value)] for name, value in values.items()]
    return Listing(["the other run is the reference", "masks"], rows)


def _edge_listing(score: EdgeScore) -> Listing:
    values = (score.ods, score.ois, score.ap, score.r50)
    return Listing(["ODS", "OIS", "AP", "R50"], [[_share(value) for value in values]])


def _limit(limit: int | None) -> str:
    return "all" if limit is None else str(limit)


def _share(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
