"""An evaluation as tables for people."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table

from amg.evaluate.bsds import RegionScore
from amg.evaluate.calibration import ScoreCalibration
from amg.evaluate.edges import EdgeScore
from amg.evaluate.evaluation import Evaluation
from amg.evaluate.partners import PartnerCounts
from amg.evaluate.recall import AverageRecall
from amg.evaluate.runs import Comparison


def as_table(evaluation: Evaluation) -> RenderableType:
    """What to print of an evaluation."""
    return Group(*_parts(evaluation))


def _parts(evaluation: Evaluation) -> Iterator[RenderableType]:
    yield from _notes(evaluation.partners, evaluation.is_complete)
    if evaluation.recall is not None:
        yield _recall_table(evaluation.recall)
    if evaluation.regions is not None:
        yield _region_table(evaluation.regions)
    if evaluation.comparison is not None:
        yield _comparison_table(evaluation.comparison)
    if evaluation.edges is not None:
        yield _edge_table(evaluation.edges)
    if evaluation.calibration is not None:
        yield _calibration_table(evaluation.calibration)


def _notes(partners: PartnerCounts, is_complete: bool) -> Iterator[str]:
    yield f"{partners.n_compared} images compared"
    if not is_complete:
        yield "The run is not complete: images without a row yet are left out."
    if partners.n_failed:
        yield f"{partners.n_failed} of them failed, and count as without masks."
    if partners.n_rows_alone:
        yield f"{partners.n_rows_alone} images are not in what they are compared with: left out."
    if partners.n_truth_alone:
        yield f"{partners.n_truth_alone} images of what it is compared with have no row: left out."
    if partners.other_size:
        yield f"{len(partners.other_size)} images are of another size there: left out."


def _recall_table(lines: tuple[AverageRecall, ...]) -> Table:
    """A row for each group of instances, columns for AR and mean best IoU at each limit."""
    limits = [line.max_masks for line in lines if line.group == lines[0].group]
    table = Table("instances", "n", *(f"AR@{_limit(limit)}" for limit in limits), "mean best IoU")
    for start in range(0, len(lines), len(limits)):
        group = lines[start : start + len(limits)]
        recalls = [_share(line.average_recall) for line in group]
        best = _share(group[-1].mean_best_iou)
        table.add_row(group[0].group, str(group[0].n_instances), *recalls, best)
    return table


def _region_table(lines: tuple[RegionScore, ...]) -> Table:
    table = Table("masks", "a photo", "covering", "AR", "mean best IoU")
    for line in lines:
        table.add_row(
            _limit(line.max_masks),
            f"{line.masks_per_image:.0f}",
            _share(line.covering),
            _share(line.average_recall),
            _share(line.mean_best_iou),
        )
    return table


def _comparison_table(comparison: Comparison) -> Table:
    table = Table("masks", "", title="the other run is the reference", title_justify="left")
    rows = {
        "reference": comparison.n_reference,
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
    for name, value in rows.items():
        table.add_row(name, str(value))
    return table


def _edge_table(score: EdgeScore) -> Table:
    table = Table("ODS", "OIS", "AP", "R50")
    table.add_row(*(_share(value) for value in (score.ods, score.ois, score.ap, score.r50)))
    return table


def _calibration_table(scores: tuple[ScoreCalibration, ...]) -> Table:
    table = Table("score against true IoU", "masks", "mean score", "mean IoU", "Pearson, Spearman")
    for score in scores:
        correlations = f"{_share(score.pearson)}, {_share(score.spearman)}"
        table.add_row(score.score, str(score.n_masks), "", "", correlations)
        for part in score.bins:
            numbers = f"{part.n_masks}", _share(part.mean_score), _share(part.mean_iou)
            table.add_row(f"  {part.low:.2f} to {part.high:.2f}", *numbers)
    return table


def _limit(limit: int | None) -> str:
    return "all" if limit is None else str(limit)


def _share(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
