"""Runs made of other runs' rows: equal to fresh ones, resumed as any, or refused."""

import json
import shutil
import signal
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from amg import ConfigError, RunError
from amg.cli import app
from amg.config import load_config
from amg.runs.folder import commit_file, read_commits, require_plan
from amg.runs.results import open_run
from amg.runs.schema import READABLE
from amg.runs.shards import read_shard
from amg.storage.stores import open_storage
from pipelines.corpus.run import Run, retry_failed, summarize
from pipelines.corpus.verify import verify
from pipelines.refilter import refilter_run
from tests.pipelines.forks import ForkedDriver
from tests.pipelines.helpers import contents, make_folder, make_run

pytestmark = pytest.mark.usefixtures("forked_workers")
MODEL = [
    *("model.device=cpu", "model.imgsz=224"),
    *("run.images_per_shard=2", "generator.points_per_side=5"),
]
LOOSE = {"pred_iou_thresh": 0.2, "stability_score_thresh": 0.2}
CROPS = {"crop_n_layers": 1, "crop_n_points_downscale_factor": 2}
TIGHT = {"pred_iou_thresh": 0.45, "stability_score_thresh": 0.5}
BEYOND = {
    "box_nms_thresh": 0.5,
    "min_mask_region_area": 30,
    "mask_nms_thresh": 0.6,
    "min_area": 40,
    "max_area_fraction": 0.8,
    "find_parents": True,
}


@pytest.fixture(scope="module")
def photo_folder(tmp_path_factory, photos):
    """Three small photos and a file that is none."""
    folder = tmp_path_factory.mktemp("photos")
    for name in ("astronaut", "coffee", "coins"):
        Image.fromarray(photos[name]).resize((128, 96)).save(folder / f"{name}.png")
    (folder / "bad.png").write_bytes(b"\x89PNG")
    return folder


def _segment(folder, out, **generator):
    options = [*MODEL, *(f"generator.{key}={json.dumps(v)}" for key, v in generator.items())]
    Run([folder], out, load_config(None, options)).execute()
    return out


@pytest.fixture(scope="module")
def sources(photo_folder, tmp_path_factory):
    """Runs with candidates, by the layers of their crops."""
    out = tmp_path_factory.mktemp("sources")
    return {
        layers: _segment(photo_folder, out / str(layers), **LOOSE, **crops, keep_candidates=True)
        for layers, crops in ((0, {}), (1, CROPS))
    }


def _rows(out):
    """All that a run's rows say, but for the time it took."""
    storage = open_storage(out)
    rows = []
    for commit in read_commits(storage, require_plan(storage)).values():
        for row in read_shard(out / commit.file, candidates=True):
            what = row.image_id, row.uri, row.status, row.error, row.height, row.width
            rows.append((*what, row.source_mode, row.sha256, row.masks, row.candidates))
    return rows


def _n_masks(rows):
    return sum(len(row[8]) for row in rows)


@pytest.mark.parametrize(
    ("layers", "changes"),
    [
        (0, {**TIGHT, **BEYOND}),
        (1, {**TIGHT, "box_nms_thresh": 0.9, "crop_nms_thresh": 0.4, "min_mask_region_area": 30}),
        (1, {"stability_score_thresh": 0.6}),
    ],
)
def test_with_candidates_rows_are_those_of_a_fresh_run(
    photo_folder, sources, tmp_path, layers, changes
):
    report = refilter_run(sources[layers], tmp_path / "new", changes, workers=2)
    crops = CROPS if layers else {}
    fresh = {**LOOSE, **crops, **changes, "keep_candidates": True}
    expected = _rows(_segment(photo_folder, tmp_path / "fresh", **fresh))
    found = _rows(tmp_path / "new")
    assert found == expected
    assert 5 < _n_masks(found) < _n_masks(_rows(sources[layers]))
    assert report.is_complete
    assert report.tally.statuses["decode_error"] == 1
    assert [p for v in verify(str(tmp_path / "new")) for p in v.problems] == []


def test_without_candidates_a_tighter_predicted_iou_is_exact(photo_folder, sources, tmp_path):
    """Though the source, without candidates, is itself refiltered."""
    refilter_run(sources[0], tmp_path / "small", {"keep_candidates": False})
    changes = {"pred_iou_thresh": 0.45, "mask_nms_thresh": 0.5, "max_area_fraction": 0.5}
    report = refilter_run(tmp_path / "small", tmp_path / "new", changes)
    assert not report.is_approximate
    expected = _rows(_segment(photo_folder, tmp_path / "fresh", **{**LOOSE, **changes}))
    assert _rows(tmp_path / "new") == expected
    assert 5 < _n_masks(expected) < _n_masks(_rows(tmp_path / "small"))


def test_the_plan_says_what_a_run_was_made_of(sources, tmp_path):
    refilter_run(sources[0], tmp_path / "new", TIGHT, workers=1)
    source, plan = (require_plan(open_storage(out)) for out in (sources[0], tmp_path / "new"))
    made_of = plan.identity["refiltered"]
    assert made_of["run_id"] == source.run_id != plan.run_id
    assert made_of["generator"] == source.identity["generator"]
    assert plan.identity["generator"] == {**source.identity["generator"], **TIGHT}
    assert made_of["approximate"] is False
    (file, _) = (tmp_path / "new" / "data").iterdir()
    metadata = pq.read_schema(file).metadata
    assert metadata[b"amg.refiltered_from"].decode() == source.run_id
    assert json.loads(metadata[b"amg.generator"])["pred_iou_thresh"] == 0.45
    with pytest.raises(RunError, match="made by refilter"):
        retry_failed(tmp_path / "new")


def test_what_is_not_exact_is_refused_or_said(sources, tmp_path):
    refilter_run(sources[1], tmp_path / "small", {"keep_candidates": False})
    with pytest.raises(ConfigError) as refused:
        refilter_run(tmp_path / "small", tmp_path / "new", TIGHT)
    said = "; ".join(refused.value.problems)
    assert "pred_iou_thresh: NMS between crops does not go by it" in said
    assert "stability_score_thresh: a mask that goes may have suppressed another" in said
    assert "--approximate" in said
    assert not (tmp_path / "new").exists()
    report = refilter_run(tmp_path / "small", tmp_path / "new", TIGHT, approximate=True)
    assert report.is_approximate
    assert json.loads((tmp_path / "new" / "report.json").read_text())["is_approximate"]
    status = CliRunner().invoke(app, ["status", str(tmp_path / "new")])
    assert "approximately" in status.output
    # What is made of it, however exactly, is no better.
    report = refilter_run(tmp_path / "new", tmp_path / "newer", {"min_area": 9})
    assert report.is_approximate
    assert summarize(tmp_path / "newer").is_approximate


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("many") / "in", 20)


STUB = ("generator.pred_iou_thresh=0.4", "run.images_per_shard=7")
CHANGES = {"max_area_fraction": 0.5, "find_parents": True}


@pytest.fixture(scope="module")
def stub_run(folder, tmp_path_factory):
    """A run of a stub, one mask an image, in three shards."""
    out = tmp_path_factory.mktemp("stub") / "out"
    make_run(folder, out, *STUB).execute()
    return out


@pytest.fixture(scope="module")
def expected(stub_run, tmp_path_factory):
    """What an undisturbed refiltering commits."""
    out = tmp_path_factory.mktemp("stub") / "new"
    assert refilter_run(stub_run, out, CHANGES, workers=2).is_complete
    return contents(out)


@pytest.mark.parametrize(
    ("point", "in_worker"),
    [
        ("plan.renamed", False),
        ("shard.row_written", True),
        ("commits.half_written", False),
        ("inputs.synced", False),
        ("data.renamed", True),
        ("_SUCCESS.begun", False),
    ],
)
def test_a_kill_at_any_step_loses_nothing(stub_run, expected, tmp_path, point, in_worker):
    out, marker = tmp_path / "out", tmp_path / "marker"
    failpoint = f"{point}=kill:{marker}"
    run = partial(refilter_run, changes=CHANGES, workers=1)
    driver = ForkedDriver(stub_run, out, run=run, AMG_FAILPOINT=failpoint)
    assert driver.wait() == (0 if in_worker else -signal.SIGKILL), driver.said()
    assert marker.exists(), driver.said()
    before = {path: path.read_bytes() for path in (out / "commits").glob("[0-9]*.json")}
    assert refilter_run(stub_run, out, CHANGES, workers=1).is_complete
    assert contents(out) == expected
    assert {path: path.read_bytes() for path in before} == before
    assert [problem for verdict in verify(str(out)) for problem in verdict.problems] == []


def test_what_is_done_is_not_done_again(stub_run, expected, tmp_path):
    out = tmp_path / "out"
    refilter_run(stub_run, out, CHANGES)
    (out / commit_file(1)).unlink()
    before = {path.name for path in (out / "data").iterdir()}
    report = refilter_run(stub_run, out, CHANGES, workers=1)
    assert report.session_images == 7
    assert len({path.name for path in (out / "data").iterdir()} - before) == 1
    assert contents(out) == expected


def test_a_folder_takes_no_work_of_other_filters_or_rows(stub_run, tmp_path):
    source, out = shutil.copytree(stub_run, tmp_path / "source"), tmp_path / "out"
    refilter_run(source, out, CHANGES)
    with pytest.raises(RunError, match=r"generator\.min_area: 0 planned, 5 now"):
        refilter_run(source, out, {**CHANGES, "min_area": 5})
    refilter_run(source, out, {**CHANGES, "min_area": 5}, overwrite=True)
    commit = source / commit_file(0)
    commit.write_text(commit.read_text().replace('"sha256": "', '"sha256": "0'))
    with pytest.raises(RunError, match=r"refiltered\.shards_sha256"):
        refilter_run(source, out, {**CHANGES, "min_area": 5})


def test_a_source_that_is_not_complete_or_the_target_itself_is_refused(stub_run, tmp_path):
    source = shutil.copytree(stub_run, tmp_path / "source")
    (tmp_path / "link").symlink_to(source)
    for itself in (source, tmp_path / "link", tmp_path / "x/../source"):
        with pytest.raises(ConfigError, match="cannot be made of itself"):
            refilter_run(source, itself, CHANGES, overwrite=True)
    assert open_run(source).is_complete
    (source / commit_file(2)).unlink()
    with pytest.raises(RunError, match="1 of 3 shards are not committed: finish the run first"):
        refilter_run(source, tmp_path / "out", CHANGES)
    with pytest.raises(RunError, match="holds no run"):
        refilter_run(tmp_path / "nothing", tmp_path / "out", CHANGES)
    assert not (tmp_path / "nothing").exists()


def test_a_damaged_shard_is_left_and_named(stub_run, tmp_path):
    source = shutil.copytree(stub_run, tmp_path / "source")
    (file,) = (source / "data").glob("part-00001.*")
    file.write_bytes(file.read_bytes()[:-10])
    report = refilter_run(source, tmp_path / "out", CHANGES)
    assert (report.n_committed, list(report.failed_shards)) == (2, [1])
    assert file.name in report.failed_shards[1]


def test_runs_of_version_1_are_refiltered(stub_run, expected, tmp_path):
    source = shutil.copytree(stub_run, tmp_path / "source")
    for path in (source / "data").iterdir():
        old = pa.Table.from_pylist(pq.read_table(path).to_pylist(), schema=READABLE[2])
        pq.write_table(old, path)
    plan = json.loads((source / "plan.json").read_text())
    plan["identity"]["schema_version"] = "1"
    for key in ("min_area", "max_area", "find_parents", "keep_candidates", "mask_nms_thresh"):
        del plan["identity"]["generator"][key]
    (source / "plan.json").write_text(json.dumps(plan))
    assert open_run(source).dataset().to_table().num_rows == open_run(source).tally.images
    assert open_run(source).mask_table().num_rows == open_run(source).tally.masks
    refilter_run(source, tmp_path / "out", CHANGES)
    assert contents(tmp_path / "out") == expected
    assert require_plan(open_storage(tmp_path / "out")).identity["schema_version"] == "3"


def test_the_command(stub_run, expected, tmp_path):
    def amg(*arguments):
        result = CliRunner().invoke(app, [*map(str, arguments)])
        return result.exit_code, " ".join(result.output.split())

    out = tmp_path / "out"
    code, said = amg("refilter", stub_run, "--out", out, "--max-area-fraction", 0.5, "--parents")
    assert code == 0, said
    run_id = require_plan(open_storage(stub_run)).run_id
    assert f"refiltered from run {run_id}" in said
    assert contents(out) == expected
    assert amg("verify", out)[0] == 0
    code, said = amg("refilter", stub_run, "--out", tmp_path / "no", "--stability", 0.9)
    assert code == 2
    assert "was never stored" in said
    code, said = amg("refilter", stub_run, "--out", tmp_path / "no", "--nms", 0.9, "--approximate")
    assert code == 2
    assert "box_nms_thresh: 0.9 is looser than the run's 0.7" in said
    assert open_run(out).is_complete
