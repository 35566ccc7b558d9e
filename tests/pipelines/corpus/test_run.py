"""Whole runs with the local engine."""

import hashlib
import json

import numpy as np
import pytest
import yaml
from PIL import Image

import amg
from amg import GeneratorConfig, MaskGenerator, RunError
from amg.config import load_config
from amg.ops import rle
from pipelines.corpus.run import Run
from tests.pipelines.helpers import contents, make_folder, make_run
from tests.pipelines.stub import FULL, HANG, KILL, RAISE

POINTS = ["generator.points_per_side=4", "run.images_per_shard=3", "run.images_per_batch=2"]


@pytest.fixture(scope="module")
def photo_folder(tmp_path_factory, photos):
    """Four good images and two bad ones; names give their order."""
    folder = tmp_path_factory.mktemp("photos")
    for i, name in enumerate(("astronaut", "coffee", "cat", "camera")):
        small = Image.fromarray(photos[name]).resize((120 + 16 * i, 90))
        small.save(folder / f"{i}-{name}.png")
    (folder / "1-zero.jpg").write_bytes(b"")
    truncated = (folder / "0-astronaut.png").read_bytes()[:2000]
    (folder / "2-truncated.png").write_bytes(truncated)
    return folder


@pytest.fixture(scope="module")
def finished(photo_folder, tmp_path_factory):
    """The folder's finished run with the built-in model, and its report."""
    out = tmp_path_factory.mktemp("run")
    states = []
    report = Run([photo_folder], out, load_config(None, POINTS)).execute(states.append)
    return out, report, states, list(amg.open_run(out).rows())


def test_one_row_for_each_image_in_order(photo_folder, finished):
    rows = finished[3]
    assert [row.image_id for row in rows] == sorted(path.name for path in photo_folder.iterdir())


def test_bad_images_are_rows_with_a_reason(finished):
    rows = {row.image_id: row for row in finished[3]}
    for name in ("1-zero.jpg", "2-truncated.png"):
        assert rows[name].status == "decode_error"
        assert rows[name].error
        assert rows[name].masks == ()
    assert rows["0-astronaut.png"].status in ("ok", "empty")


def test_rows_hold_what_the_generator_gives(photo_folder, finished, nano):
    generator = MaskGenerator(nano, GeneratorConfig(points_per_side=4))
    n_masks = 0
    for row in finished[3]:
        if row.status in ("ok", "empty"):
            data = (photo_folder / row.image_id).read_bytes()
            assert row.sha256 == hashlib.sha256(data).hexdigest()
            image = np.array(Image.open(photo_folder / row.image_id).convert("RGB"))
            assert (row.height, row.width) == image.shape[:2]
            expected = generator.generate(image)
            assert [mask.rle for mask in row.masks] == [mask.rle for mask in expected.masks]
            assert all(mask.area == rle.area(mask.rle) for mask in row.masks)
            n_masks += len(row.masks)
    assert n_masks > 0


def test_the_report_counts(finished):
    out, report, states, rows = finished
    assert report.is_complete
    assert report.tally.images == len(rows) == 6
    assert report.tally.failed == 2
    assert report.tally.masks == sum(len(row.masks) for row in rows) > 0
    written = json.loads((out / "report.json").read_text())
    assert written["tally"]["statuses"]["decode_error"] == 2
    assert states[-1].done.images == 6
    assert 0 < states[-1].busy_share <= 1


def test_the_folder_says_what_was_done(finished, nano):
    out = finished[0]
    assert (out / "_SUCCESS").exists()
    written = yaml.safe_load((out / "config.yaml").read_text())
    assert written["generator"]["points_per_side"] == 4
    defaults = nano.info.generator_defaults
    assert written["generator"]["pred_iou_thresh"] == defaults["pred_iou_thresh"]
    plan = json.loads((out / "plan.json").read_text())
    assert plan["identity"]["model"]["weights_sha256"] == nano.info.weights_sha256
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    assert [e["event"] for e in events].count("committed") == 2
    assert list((out / "attempts").iterdir()) == []


def test_a_finished_run_is_not_done_again(photo_folder, finished):
    out, report, _, _ = finished
    before = {path: path.read_bytes() for path in (out / "data").iterdir()}
    again = Run([photo_folder], out, load_config(None, POINTS)).execute()
    assert again.session_images == 0
    assert again.tally == report.tally
    assert {path: path.read_bytes() for path in (out / "data").iterdir()} == before


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ("generator.points_per_side=5", "generator.points_per_side: 4 planned, 5 now"),
        ("run.images_per_shard=4", "run.images_per_shard: 3 planned, 4 now"),
        ("model.imgsz=224", "model.imgsz: None planned, 224 now"),
        ("run.max_image_pixels=1000", "run.max_image_pixels"),
    ],
)
def test_a_folder_takes_no_work_of_other_parameters(photo_folder, finished, changed, said):
    run = Run([photo_folder], finished[0], load_config(None, [*POINTS, changed]))
    with pytest.raises(RunError) as refused:
        run.execute()
    assert said in str(refused.value)


def test_what_does_not_decide_the_rows_may_change(photo_folder, finished):
    changed = [*POINTS, "generator.points_per_batch=3", "run.decode_threads=1"]
    assert Run([photo_folder], finished[0], load_config(None, changed)).execute().is_complete


@pytest.mark.usefixtures("forked")
def test_changed_inputs_are_named(tmp_path):
    folder, out = make_folder(tmp_path / "in", 3), tmp_path / "out"
    make_run(folder, out).execute()
    (folder / "001.png").rename(folder / "new.png")
    with pytest.raises(RunError, match=r"1 new \('new\.png'\), 1 gone \('001\.png'\)"):
        make_run(folder, out).execute()
    assert make_run(folder, out, overwrite=True).execute().is_complete
    assert [row[0] for row in contents(out)] == ["000.png", "002.png", "new.png"]
    assert len(list((out / "data").iterdir())) == 1


@pytest.mark.usefixtures("forked")
def test_images_that_kill_hang_and_fail_are_rows_and_spoil_no_other(tmp_path):
    bad = {3: KILL, 4: RAISE, 11: HANG, 12: FULL, 13: KILL}
    folder, clean = make_folder(tmp_path / "in", 20, bad), make_folder(tmp_path / "clean", 20)
    report = make_run(folder, tmp_path / "out", "run.stall_timeout_s=3").execute()
    assert report.is_complete
    make_run(clean, tmp_path / "clean-out").execute()
    found, expected = contents(tmp_path / "out"), contents(tmp_path / "clean-out")
    wrong = {i: "oom" if i == 12 else "crashed" for i in bad}
    assert {i: row[1] for i, row in enumerate(found) if row[1] != "ok"} == wrong
    assert [r for i, r in enumerate(found) if i not in bad] == [
        r for i, r in enumerate(expected) if i not in bad
    ]
    errors = {row.image_id: row.error for row in amg.open_run(tmp_path / "out").rows()}
    assert "SIGKILL" in errors["003.png"]
    assert "no step for 3 s" in errors["011.png"]
    assert "a bug that this image finds" in errors["004.png"]


def test_several_workers_give_the_rows_of_one(tmp_path):
    folder = make_folder(tmp_path / "in", 40)
    make_run(folder, tmp_path / "one").execute()
    make_run(folder, tmp_path / "three", "engine.max_workers=3").execute()
    assert contents(tmp_path / "three") == contents(tmp_path / "one")


@pytest.mark.usefixtures("forked")
def test_slices_share_a_run(tmp_path):
    folder, out = make_folder(tmp_path / "in", 40), tmp_path / "out"
    first = make_run(folder, out, slice_=(0, 2)).execute()
    assert not first.is_complete
    assert first.n_committed == 3
    assert not (out / "_SUCCESS").exists()
    second = make_run(folder, out, slice_=(1, 2)).execute()
    assert second.is_complete
    assert second.session_images == 16
    assert (out / "_SUCCESS").exists()


@pytest.mark.usefixtures("forked")
def test_too_many_failures_stop_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.corpus.driver._LEAST_FOR_A_RATE", 100)
    folder = make_folder(tmp_path / "in", 240)
    for i in range(100):
        (folder / f"{2 * i:03d}.png").write_bytes(b"")
    report = make_run(folder, tmp_path / "out", "run.max_failure_rate=0.2").execute()
    assert not report.is_complete
    assert "max_failure_rate" in report.stopped
    assert 100 <= report.tally.images < 240


def test_duplicate_ids_are_refused_and_named(tmp_path):
    for name in ("one", "two"):
        make_folder(tmp_path / name, 2)
    run = Run([tmp_path / "one", tmp_path / "two"], tmp_path / "out")
    with pytest.raises(amg.ConfigError, match=r"2 image ids .*'000\.png', '001\.png'"):
        run.execute()


@pytest.mark.usefixtures("forked")
def test_limit_takes_the_first_images(tmp_path):
    folder = make_folder(tmp_path / "in", 5)
    report = make_run(folder, tmp_path / "out", limit=3).execute()
    assert report.n_images == 3
    assert [row[0] for row in contents(tmp_path / "out")] == ["000.png", "001.png", "002.png"]


@pytest.mark.usefixtures("forked")
def test_a_worker_without_its_weights_ends_the_run(tmp_path):
    folder = make_folder(tmp_path / "in", 2)
    make_run(folder, tmp_path / "out").execute()
    out = tmp_path / "out"
    for path in (*(out / "commits").iterdir(), *(out / "data").iterdir()):
        path.unlink()
    plan = json.loads((out / "plan.json").read_text())
    plan["identity"]["model"]["weights_sha256"] = "0" * 64
    (out / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(amg.CheckpointError, match="planned with 000"):
        # The plan's fingerprint is kept, so only the worker can notice.
        Run(
            [folder],
            out,
            load_config(
                None, ["model.device=cpu", "run.images_per_shard=8", "run.images_per_batch=2"]
            ),
        ).execute()
