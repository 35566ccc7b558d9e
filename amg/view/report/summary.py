"""Sums over a run's committed rows, in one pass by columns and in memory that does not grow."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from amg.errors import RleError, ShardError
from amg.ops.coverage import covered_pixels_of_images
from amg.runs.folder import Commit, Plan
from amg.runs.schema import FAILED
from amg.runs.shards import read_columns
from amg.runs.watching import OnItems
from amg.storage.stores import Storage
from amg.view.report.counting import (
    Extremes,
    Floats,
    Histogram,
    Int64s,
    even_edges,
    log_edges,
    whole_edges,
)

EXAMPLES_PER_KIND = 5
MAX_COVERAGE_IMAGES = 100_000
"""Count strings are nearly all of a run's bytes: beyond this, only every n-th shard's are read."""

STAGES = ("decode", "encode", "masks")
EXTREMES = ("fewest", "most", "uncovered", "slowest", "failed")

_COLUMNS = [
    *("image_id", "uri", "status", "error", "height", "width", "seconds"),
    *(f"masks.list.element.{name}" for name in ("area", "predicted_iou", "stability_score")),
]
_COUNTS = "masks.list.element.counts"


@dataclass(frozen=True, slots=True)
class FailedImage:
    """An image whose row has a reason instead of masks; `row` is its place in the plan."""

    row: int
    image_id: str
    uri: str
    error: str


@dataclass
class Summary:
    """What a run found. Masks an image and coverage are of the images that did not fail.

    `covered_px` of `measured_px` pixels are under a mask, in `measured_images` images. `extremes`
    has rows, as numbered in the plan, of each kind of `EXTREMES`.
    """

    extremes: dict[str, Extremes]
    statuses: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[FailedImage]] = field(default_factory=dict)
    n_masks: int = 0
    measured_images: int = 0
    measured_px: int = 0
    covered_px: int = 0
    stage_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    areas: Histogram = field(default_factory=lambda: Histogram(log_edges(0, 9, 5)))
    predicted_ious: Histogram = field(default_factory=lambda: Histogram(even_edges(1.2, 120)))
    stabilities: Histogram = field(default_factory=lambda: Histogram(even_edges(1, 100)))
    masks_per_image: Histogram = field(default_factory=lambda: Histogram(whole_edges(2**14)))
    coverages: Histogram = field(default_factory=lambda: Histogram(even_edges(1, 20)))
    seconds: dict[str, Histogram] = field(
        default_factory=lambda: {stage: Histogram(log_edges(-5, 5, 5)) for stage in STAGES}
    )

    @property
    def n_images(self) -> int:
        """All rows."""
        return self.statuses.total()

    @property
    def failed(self) -> dict[str, int]:
        """How many images failed, by kind, most first."""
        return {kind: n for kind, n in self.statuses.most_common() if kind in FAILED}

    @property
    def n_good(self) -> int:
        """Images that were segmented, whether masks were found or not."""
        return self.n_images - sum(self.failed.values())

    @property
    def coverage(self) -> float | None:
        """The share of pixels under a mask; None where none were measured."""
        return self.covered_px / self.measured_px if self.measured_px else None


def summarize(
    storage: Storage, plan: Plan, commits: Mapping[int, Commit], n_extremes: int, watch: OnItems
) -> Summary:
    """Add up committed rows; `n_extremes` are kept of each kind.

    Raises ShardError for a shard that is damaged, StorageError if it cannot be read.
    """
    summary = Summary({kind: Extremes(n_extremes) for kind in EXTREMES})
    n_images = sum(len(plan.shard_rows(shard)) for shard in commits)
    measure_every = -(-n_images // MAX_COVERAGE_IMAGES)
    for number, (shard, commit) in enumerate(commits.items()):
        columns = [*_COLUMNS, _COUNTS] if number % measure_every == 0 else _COLUMNS
        first_row = plan.shard_rows(shard).start
        with storage.open(commit.file) as file:
            for table in read_columns(file, commit.file, columns):
                try:
                    add_rows(summary, table, first_row)
                except RleError as error:
                    raise ShardError(f"{commit.file}: {error}") from error
                first_row += len(table)
                watch(summary.n_images, n_images, "images")
    return summary


def add_rows(summary: Summary, table: pa.Table, first_row: int) -> None:
    """Add a table's rows, the first of them `first_row` in the plan.

    Coverage is measured if the table has the masks' counts. Raises RleError for counts that do
    not fill their image.
    """
    rows = np.arange(first_row, first_row + len(table))
    summary.statuses.update(table.column("status").to_pylist())
    failed = np.isin(table.column("status").to_numpy(), sorted(FAILED))
    reasons = table.select(["status", "image_id", "uri", "error"])
    _add_examples(summary, reasons.filter(pa.array(failed)), rows[failed])
    masks = _one_array(table.column("masks"))
    n_masks = np.where(failed, np.nan, np.diff(masks.offsets.to_numpy()))
    _add_masks(summary, masks.flatten(), n_masks)
    coverage = _add_coverage(summary, masks, np.where(failed, 0, _pixels(table)))
    total_s = _add_seconds(summary, _one_array(table.column("seconds")))
    keys = (n_masks, -n_masks, coverage, -total_s, np.where(failed, 0.0, np.nan))
    for kind, key in zip(EXTREMES, keys, strict=True):
        summary.extremes[kind].add(key, rows)


def _add_examples(summary: Summary, failed: pa.Table, rows: Int64s) -> None:
    """Keep the first failed images of each kind."""
    for row, values in zip(rows.tolist(), failed.to_pylist(), strict=True):
        examples = summary.examples.setdefault(values["status"], [])
        if len(examples) < EXAMPLES_PER_KIND:
            error = values["error"] or ""
            examples.append(FailedImage(row, values["image_id"], values["uri"], error))


def _add_masks(summary: Summary, masks: pa.StructArray, n_masks: Floats) -> None:
    summary.n_masks += len(masks)
    summary.masks_per_image.add(n_masks)
    for histogram, name in (
        (summary.areas, "area"),
        (summary.predicted_ious, "predicted_iou"),
        (summary.stabilities, "stability_score"),
    ):
        histogram.add(_field(masks, name).to_numpy(zero_copy_only=False))


def _add_coverage(summary: Summary, masks: pa.ListArray, n_pixels: Int64s) -> Floats:
    """Each image's share of pixels under a mask; NaN where it has none or is not measured."""
    known = n_pixels > 0
    if masks.type.value_type.get_field_index("counts") < 0 or not known.any():
        return np.full(len(n_pixels), np.nan)
    counts = _field(masks.flatten(), "counts")
    _, starts, text = counts.buffers()
    firsts = masks.offsets.to_numpy().astype(np.int64)
    covered = covered_pixels_of_images(
        np.frombuffer(text or b"", np.uint8),
        np.frombuffer(starts, np.int64)[counts.offset : counts.offset + len(counts) + 1],
        firsts - firsts[0],
        n_pixels,
    )
    summary.measured_images += int(known.sum())
    summary.measured_px += int(n_pixels.sum())
    summary.covered_px += int(covered.sum())
    shares = np.divide(covered, n_pixels, out=np.full(len(n_pixels), np.nan), where=known)
    summary.coverages.add(shares)
    return shares


def _add_seconds(summary: Summary, seconds: pa.StructArray) -> Floats:
    """Each image's seconds in all; a stage that it did not reach counts nowhere."""
    total_s = np.zeros(len(seconds))
    for stage in STAGES:
        stage_s = _field(seconds, stage).to_numpy(zero_copy_only=False).astype(np.float64)
        summary.stage_s[stage] += float(stage_s.sum())
        summary.seconds[stage].add(stage_s[stage_s > 0])
        total_s += stage_s
    return total_s


def _field(structs: pa.StructArray, name: str) -> pa.Array:
    return structs.flatten()[structs.type.get_field_index(name)]


def _pixels(table: pa.Table) -> Int64s:
    """Height times width, 0 where they are not known."""
    height, width = (pc.fill_null(table.column(side), 0).to_numpy() for side in ("height", "width"))
    return height.astype(np.int64) * width


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
