"""A report's numbers against plain ones, computed from all rows at once."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from amg.errors import ShardError
from amg.ops import rle
from amg.records import Rle
from amg.runs.folder import read_commits, require_plan
from amg.runs.results import open_run
from amg.runs.schema import FAILED, ImageRow
from amg.storage.stores import open_storage
from amg.view.report import summary as module
from amg.view.report.counting import Extremes, Histogram, even_edges, whole_edges
from amg.view.report.summary import STAGES, summarize
from tests.view.made_run import SIZE_HW, blob_masks, good_row, make_mask, write_image, write_run


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Thirty images, of which some failed and some have no mask."""
    path = write_image(tmp_path_factory.mktemp("images") / "image.png")
    rows = []
    for i in range(30):
        if i % 7 == 3:
            status, reason = ("missing", "no such file") if i < 15 else ("decode_error", None)
            rows.append(ImageRow(f"{i}", f"/{i}", status, reason, decode_s=0.52 if i == 3 else 0.0))
        else:
            rows.append(
                good_row(f"{i}", path, blob_masks(i, i % 5 * 3), seconds=0.05 * (i % 11 + 1))
            )
    return rows


@pytest.fixture(scope="module")
def out(rows, tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run") / "out", rows)


def _summarize(out, n_extremes=4):
    storage = open_storage(out)
    plan = require_plan(storage)
    return summarize(storage, plan, read_commits(storage, plan), n_extremes, lambda *_: None)


def _covered(row):
    union = np.zeros(SIZE_HW, bool)
    for mask in row.masks:
        union |= rle.decode(mask.rle)
    return int(union.sum())


def _total_s(row):
    return row.decode_s + row.encode_s + row.masks_s


def _check_histogram(histogram, values):
    edges = histogram.edges
    inside = np.clip(np.asarray(values, np.float32), edges[0], np.nextafter(edges[-1], 0))
    np.testing.assert_array_equal(histogram.counts, np.histogram(inside, edges)[0])


def test_counts_and_sums(out, rows):
    found = _summarize(out)
    good = [row for row in rows if row.status not in FAILED]
    assert found.statuses == Counter(row.status for row in rows)
    assert found.failed == {"missing": 2, "decode_error": 2}
    assert (found.n_images, found.n_good) == (30, 26)
    assert found.n_masks == sum(len(row.masks) for row in rows)
    assert found.measured_images == 26
    assert found.covered_px == sum(map(_covered, good))
    assert found.coverage == found.covered_px / (26 * SIZE_HW[0] * SIZE_HW[1])
    for stage in STAGES:
        assert found.stage_s[stage] == pytest.approx(sum(getattr(r, f"{stage}_s") for r in rows))


def test_histograms(out, rows):
    found = _summarize(out)
    good = [row for row in rows if row.status not in FAILED]
    masks = [mask for row in rows for mask in row.masks]
    _check_histogram(found.areas, [mask.area for mask in masks])
    _check_histogram(found.predicted_ious, [mask.predicted_iou for mask in masks])
    _check_histogram(found.stabilities, [mask.stability_score for mask in masks])
    _check_histogram(found.masks_per_image, [len(row.masks) for row in good])
    pixels = SIZE_HW[0] * SIZE_HW[1]
    np.testing.assert_array_equal(
        found.coverages.counts,
        np.histogram([_covered(row) / pixels for row in good], found.coverages.edges)[0],
    )
    _check_histogram(found.seconds["decode"], [row.decode_s for row in rows if row.decode_s])
    _check_histogram(found.seconds["masks"], [row.masks_s for row in good])


def test_extremes(out, rows):
    found = _summarize(out)
    good = [i for i, row in enumerate(rows) if row.status not in FAILED]
    expected = {
        "fewest": sorted(good, key=lambda i: len(rows[i].masks)),
        "most": sorted(good, key=lambda i: -len(rows[i].masks)),
        "uncovered": sorted(good, key=lambda i: _covered(rows[i])),
        "slowest": sorted(range(30), key=lambda i: -_total_s(rows[i])),
        "failed": [i for i, row in enumerate(rows) if row.status in FAILED],
    }
    for kind, wanted in expected.items():
        assert found.extremes[kind].rows == wanted[:4], kind


def test_examples_of_failures(out):
    found = _summarize(out)
    shown = {kind: [(e.row, e.image_id, e.error) for e in v] for kind, v in found.examples.items()}
    assert shown == {
        "missing": [(3, "3", "no such file"), (10, "10", "no such file")],
        "decode_error": [(17, "17", ""), (24, "24", "")],
    }


def test_few_examples_of_many_failures(tmp_path):
    rows = [ImageRow(f"{i}", f"/{i}", "oom", "no more") for i in range(20)]
    found = _summarize(write_run(tmp_path / "out", rows))
    assert [example.row for example in found.examples["oom"]] == [0, 1, 2, 3, 4]
    assert (found.failed, found.coverage, found.n_masks) == ({"oom": 20}, None, 0)
    assert found.extremes["fewest"].rows == found.extremes["uncovered"].rows == []


def test_only_committed_shards_count_and_rows_keep_their_numbers(rows, tmp_path):
    out = write_run(tmp_path / "out", rows, leave_out=(0, 2))
    found = _summarize(out, 100)
    there = [i for i in range(30) if i // 4 not in (0, 2)]
    assert found.n_images == len(there) == sum(1 for _ in open_run(out).rows())
    assert sorted(found.extremes["slowest"].rows) == there


def test_a_run_without_commits(rows, tmp_path):
    found = _summarize(write_run(tmp_path / "out", rows, leave_out=range(8)))
    assert (found.n_images, found.n_masks, found.coverage) == (0, 0, None)


def test_of_many_images_coverage_is_measured_on_some(rows, out, monkeypatch):
    monkeypatch.setattr(module, "MAX_COVERAGE_IMAGES", 12)  # every third shard of four images
    found = _summarize(out, 100)
    measured = [i for i, row in enumerate(rows) if i // 4 % 3 == 0 and row.status not in FAILED]
    assert found.measured_images == len(measured)
    assert found.covered_px == sum(_covered(rows[i]) for i in measured)
    assert sorted(found.extremes["uncovered"].rows) == measured
    assert found.masks_per_image.total == 26, "the rest is of all"


def test_counts_that_are_no_masks_are_named(tmp_path):
    path = write_image(tmp_path / "image.png")
    mask = make_mask(np.ones(SIZE_HW, bool))
    row = good_row("bad", path, (replace(mask, rle=Rle(SIZE_HW, "05")),))
    out = write_run(tmp_path / "out", [row])
    with pytest.raises(ShardError, match=r"data/part-00000.*: counts of mask 0"):
        _summarize(out)


def test_a_histogram_counts_what_lies_beyond_at_its_ends_and_leaves_out_nan():
    histogram = Histogram(even_edges(1, 4))
    histogram.add([-3, 0, 0.25, 0.999, 1, 7, np.nan])
    assert histogram.counts.tolist() == [2, 1, 0, 3]
    assert histogram.total == 6


def test_quantiles_are_right_to_a_bin():
    values = np.random.default_rng(0).normal(40, 8, 5000).round()
    histogram = Histogram(whole_edges(100))
    for part in np.split(values, 5):
        histogram.add(part)
    for share in (0.05, 0.5, 0.95):
        assert histogram.quantile(share) == pytest.approx(np.quantile(values, share), abs=1)
    assert np.isnan(Histogram(even_edges(1, 3)).quantile(0.5))


def test_extremes_are_those_of_a_stable_sort_whatever_the_parts():
    keys = np.random.default_rng(1).integers(0, 9, 200).astype(float)
    keys[::17] = np.nan
    extremes = Extremes(30)
    for part in np.split(np.arange(200), 8):
        extremes.add(keys[part], part)
    assert extremes.rows == np.argsort(keys, kind="stable")[:30].tolist()
