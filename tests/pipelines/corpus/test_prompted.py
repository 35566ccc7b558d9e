"""Runs from prompts: every prompt is answered once, or its row says why not."""

import json
import signal
import sys
from functools import partial

import numpy as np
import pytest
from typer.testing import CliRunner

from amg.cli import app
from amg.config import load_config
from amg.errors import ConfigError, RunError
from amg.runs.folder import PROMPTS, require_plan
from amg.runs.results import open_run
from amg.storage.stores import open_storage
from pipelines.corpus.listing import Job
from pipelines.corpus.plan import survey
from pipelines.corpus.run import Run, retry_failed
from pipelines.corpus.verify import verify
from pipelines.refilter import refilter_run
from tests.pipelines.forks import ForkedDriver
from tests.pipelines.helpers import QUICK, make_folder
from tests.pipelines.stub import KILL, RAISE, make_prompted_stub, make_stub, save_image

N_IMAGES, SIZE_HW = 20, (24, 32)
pytestmark = pytest.mark.usefixtures("forked_workers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("photos"), N_IMAGES)


def _boxes(n_images=N_IMAGES, per_image=3, seed=0):
    """COCO's annotations of boxes within images, in no order of these."""
    rng = np.random.default_rng(seed)
    annotations = []
    for i in range(n_images * per_image):
        x, y = rng.integers(0, 20, 2).tolist()
        box = [x, y, int(rng.integers(1, 12)), int(rng.integers(1, 4))]
        annotations.append({"image_id": i % n_images, "bbox": box, "category_id": 3 + 4 * (i % 2)})
    rng.shuffle(annotations)
    return [{"id": 1000 + i, "score": i / 64, **a} for i, a in enumerate(annotations)]


def _coco(annotations, n_images=N_IMAGES):
    return {
        "annotations": annotations,
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        "images": [{"id": i, "file_name": f"{i:03d}.png"} for i in range(n_images)],
    }


def _save(path, content):
    path.write_text(json.dumps(content))
    return path


def _run(folder, out, prompts, *overrides, **options):
    config = load_config(None, [*QUICK, *overrides])
    make = options.pop("make_generator", make_prompted_stub)
    return Run([folder], out, config, prompts=prompts, make_generator=make, **options)


def _answers(out):
    """What was answered, by prompt_id: which image, category, score, box; each once."""
    found = {}
    for row in open_run(out).rows():
        for mask in row.masks:
            assert mask.prompt_id not in found
            asked = mask.prompt
            found[mask.prompt_id] = row.image_id, asked.category, asked.score, asked.box_xyxy
            x0, y0, _, _ = asked.box_xyxy
            assert mask.bbox_xywh[:2] == (x0, y0), "it is the answer to its own prompt"
    return found


def _expected(annotations):
    names = {3: "cat", 7: "dog"}
    return {
        str(a["id"]): (
            f"{a['image_id']:03d}.png",
            names[a["category_id"]],
            a["score"],
            (*a["bbox"][:2], a["bbox"][0] + a["bbox"][2], a["bbox"][1] + a["bbox"][3]),
        )
        for a in annotations
    }


def test_every_prompt_is_answered_once(folder, tmp_path):
    annotations = _boxes()
    prompts = _save(tmp_path / "boxes.json", _coco(annotations))
    report = _run(folder, tmp_path / "out", prompts).execute()
    assert report.is_complete
    assert (report.tally.masks, report.tally.prompt_errors) == (60, 0)
    assert (report.prompts.asked, report.prompts.images_without) == (60, 0)
    assert _answers(tmp_path / "out") == _expected(annotations)
    run = open_run(tmp_path / "out")
    assert run.plan.categories == {"cat": 3, "dog": 7}
    masks = run.mask_table(["prompt_id", "category", "score", "object_score"]).to_pylist()
    assert {m["object_score"] for m in masks} == {1.5}
    assert {m["prompt_id"]: m["category"] for m in masks} == {
        key: values[1] for key, values in _expected(annotations).items()
    }


def test_prompts_are_in_the_order_of_their_file(folder, tmp_path):
    annotations = _boxes(per_image=6)
    prompts = _save(tmp_path / "boxes.json", _coco(annotations))
    _run(folder, tmp_path / "out", prompts).execute()
    for i, row in enumerate(open_run(tmp_path / "out").rows()):
        expected = [str(a["id"]) for a in annotations if a["image_id"] == i]
        assert [mask.prompt_id for mask in row.masks] == expected


def test_multimask_keeps_three_of_each(folder, tmp_path):
    prompts = _save(tmp_path / "boxes.json", _coco(_boxes()))
    report = _run(folder, tmp_path / "out", prompts, "run.multimask=true").execute()
    assert report.tally.masks == 180
    with pytest.raises(RunError, match=r"prompts\.multimask: True planned, False now"):
        _run(folder, tmp_path / "out", prompts).execute()


def test_keys_that_would_do_nothing_are_refused(folder, tmp_path):
    prompts = _save(tmp_path / "boxes.json", _coco(_boxes()))
    for asked, key in ((None, "run.multimask"), (prompts, "generator.keep_candidates")):
        with pytest.raises(ConfigError, match=rf"^{key}: "):
            _run(folder, tmp_path / "out", asked, f"{key}=true").execute()
    assert not (tmp_path / "out" / "plan.json").exists()


BAD = {
    "is outside its image of 32 x 24": [40, 2, 5, 5],
    "is empty": [3, 3, 0, 4],
    "is upside down": [9, 9, -4, 2],
    "is not of finite numbers": [float("nan"), 0, 4, 4],
    "neither box nor points": None,
}


def test_what_cannot_be_asked_is_an_error_of_its_row(folder, tmp_path):
    annotations = [
        {"id": f"bad-{i}", "image_id": 4, "bbox": box} for i, box in enumerate(BAD.values())
    ]
    annotations += [
        {"id": "label", "image_id": 4, "points": [[1, 1]], "labels": [2]},
        {"id": "far", "image_id": 4, "points": [[1, 1], [1, 99]]},
        {"id": "good", "image_id": 4, "bbox": [-5, -5, 10, 10]},
        {"id": "point", "image_id": 4, "points": [[31.5, 2]]},
        {"id": "alone", "image_id": 5, "bbox": [40, 2, 5, 5]},
    ]
    prompts = _save(tmp_path / "boxes.json", _coco(annotations))
    report = _run(folder, tmp_path / "out", prompts).execute()
    assert report.is_complete
    assert report.tally.failed == 0
    assert report.tally.prompt_errors == 8
    assert report.tally.statuses == {"ok": 1, "empty": 19}
    rows = {row.image_id: row for row in open_run(tmp_path / "out").rows()}
    row = rows["004.png"]
    assert [mask.prompt_id for mask in row.masks] == ["good", "point"]
    said = {error.prompt_id: error.error for error in row.prompt_errors}
    for i, reason in enumerate(BAD):
        assert reason in said[f"bad-{i}"]
    assert "label 2" in said["label"]
    assert "point (1, 99) is outside" in said["far"]
    assert rows["005.png"].status == "empty"
    assert len(rows["005.png"].prompt_errors) == 1
    without = rows["006.png"]  # it is read, and nothing asked of it
    assert (without.prompt_errors, without.height, without.sha256 is None) == ((), 24, False)


def test_prompts_without_an_image_are_counted_and_named(folder, tmp_path, caplog):
    entries = [{"image_id": f"{i:03d}.png", "bbox": [1, 1, 4, 4]} for i in (3, 2, 40, 3, 41)]
    prompts = _save(tmp_path / "results.json", entries)
    job = Job([str(folder)], load_config(None, QUICK), prompts=str(prompts))
    listing, _ = survey(job)
    counts = listing.asked.counts(listing.n_images)
    assert (counts.asked, counts.without_image, counts.images, counts.images_without) == (
        *(3, 2),
        *(2, 18),
    )
    report = _run(folder, tmp_path / "out", prompts).execute()
    assert report.prompts == counts
    assert "2 prompts are about no planned image, such as '040.png', '041.png'" in caplog.text
    ids = {
        row.image_id: [m.prompt_id for m in row.masks] for row in open_run(tmp_path / "out").rows()
    }
    assert ids["003.png"] == ["0", "3"]
    assert ids["002.png"] == ["1"]
    with pytest.raises(ConfigError, match=r"none of 2 .* name '040\.png'; the first image is '000"):
        survey(
            Job(
                [str(folder)],
                load_config(None, QUICK),
                prompts=str(_save(tmp_path / "no.json", entries[2:3] * 2)),
            )
        )


def test_a_run_of_other_prompts_is_refused_and_the_same_goes_on(folder, tmp_path):
    first = _save(tmp_path / "first.json", _coco(_boxes()))
    out = tmp_path / "out"
    _run(folder, out, first, make_generator=make_prompted_stub).execute()
    assert _run(folder, out, first).execute().session_images == 0
    for other in (_save(tmp_path / "other.json", _coco(_boxes(seed=1))), None):
        with pytest.raises(RunError, match=r"prompts(\.sha256)?: .* planned"):
            _run(folder, out, other).execute()
    _run(folder, out, tmp_path / "other.json", overwrite=True).execute()
    assert _answers(out) == _expected(_boxes(seed=1))
    with pytest.raises(RunError, match="holds another run"):
        _run(folder, out, None, make_generator=make_stub).execute()


def test_an_image_that_kills_its_worker_costs_no_other_its_answers(tmp_path):
    folder = make_folder(tmp_path / "photos", 6, {2: KILL, 4: RAISE})
    annotations = _boxes(6)
    prompts = _save(tmp_path / "boxes.json", _coco(annotations, 6))
    report = _run(folder, tmp_path / "out", prompts).execute()
    assert report.tally.statuses == {"ok": 4, "crashed": 2}
    bad = ("002.png", "004.png")
    expected = {k: v for k, v in _expected(annotations).items() if v[0] not in bad}
    assert _answers(tmp_path / "out") == expected
    for i in (2, 4):
        save_image(folder / f"{i:03d}.png", i)
    report = retry_failed(tmp_path / "out", make_generator=make_prompted_stub)
    assert report.tally.statuses == {"ok": 6}
    assert _answers(tmp_path / "out") == _expected(annotations)


def test_prompts_that_are_gone_are_named(folder, tmp_path):
    prompts = _save(tmp_path / "boxes.json", _coco(_boxes()))
    run = _run(folder, tmp_path / "out", prompts)
    run.execute()
    (tmp_path / "out" / PROMPTS).unlink()
    (tmp_path / "out" / "commits" / "00001.json").unlink()
    with pytest.raises(RunError, match=r"prompts\.parquet is missing"):
        run.execute()


def test_verify_misses_an_answer(folder, tmp_path):
    prompts = _save(tmp_path / "boxes.json", _coco(_boxes()))
    out = tmp_path / "out"
    _run(folder, out, prompts).execute()
    assert not [p for verdict in verify(str(out)) for p in verdict.problems]
    more = _save(
        tmp_path / "more.json", _coco([*_boxes(), {"id": 5, "image_id": 9, "bbox": [1] * 4}])
    )
    _run(folder, tmp_path / "more", more).execute()
    (tmp_path / "more" / PROMPTS).replace(out / PROMPTS)
    problems = [p for verdict in verify(str(out)) for p in verdict.problems]
    assert problems == ["009.png: prompt '5' has neither mask nor error"]


def test_masks_of_a_run_are_prompts_of_another(folder, tmp_path):
    prompts = _save(tmp_path / "boxes.json", _coco(_boxes()))
    _run(folder, tmp_path / "first", prompts).execute()
    report = _run(folder, tmp_path / "second", tmp_path / "first").execute()
    assert report.tally.prompt_errors == 0
    assert _answers(tmp_path / "second") == _answers(tmp_path / "first")
    assert require_plan(open_storage(tmp_path / "second")).categories == {"cat": 3, "dog": 7}


def test_masks_of_a_grid_are_called_by_their_index(folder, tmp_path):
    Run([folder], tmp_path / "grid", load_config(None, QUICK), make_generator=make_stub).execute()
    report = _run(folder, tmp_path / "out", tmp_path / "grid").execute()
    assert report.tally.masks == N_IMAGES
    grid = list(open_run(tmp_path / "grid").rows())
    for before, row in zip(grid, open_run(tmp_path / "out").rows(), strict=True):
        ((mask,), (proposed,)) = row.masks, before.masks
        x, y, w, h = proposed.bbox_xywh
        assert mask.prompt.box_xyxy == (x, y, x + w + 1, y + h + 1)
        assert (mask.prompt_id, mask.score) == ("0", proposed.predicted_iou)


def test_a_refiltered_run_keeps_what_was_asked(folder, tmp_path):
    prompts = _save(tmp_path / "boxes.json", _coco(_boxes()))
    _run(folder, tmp_path / "run", prompts).execute()
    refilter_run(tmp_path / "run", tmp_path / "large", {"min_area": 10})
    masks = [mask for row in open_run(tmp_path / "run").rows() for mask in row.masks]
    large = {mask.prompt_id for mask in masks if mask.area >= 10}
    assert 0 < len(large) < 60
    before = _answers(tmp_path / "run")
    assert _answers(tmp_path / "large") == {name: before[name] for name in large}
    assert require_plan(open_storage(tmp_path / "large")).categories == {"cat": 3, "dog": 7}


def test_the_commands(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.corpus.generators.make_prompted", make_prompted_stub)
    entries = [{"image_id": f"{i:03d}.png", "bbox": [1, 1, 4, 4]} for i in (3, 2, 40)]
    entries.append({"image_id": "003.png", "bbox": [90, 1, 4, 4]})
    prompts = _save(tmp_path / "results.json", entries)

    def amg(*arguments):
        result = CliRunner().invoke(app, [*map(str, arguments)])
        return result.exit_code, " ".join(result.output.split())

    options = ["--prompts", prompts, *(f"--set={value}" for value in QUICK)]
    said = "3 prompts about 2 images; 18 images have none; 1 prompts more are about no image"
    code, text = amg("plan", folder, *options)
    assert (code, said in text) == (0, True), text
    out = tmp_path / "out"
    code, text = amg("run", folder, "--out", out, "--multimask", *options)
    assert (code, said in text, "1 could not be asked" in text) == (0, True, True), text
    assert open_run(out).tally.masks == 6
    code, text = amg("status", out)
    assert (code, said in text, "1 could not be asked" in text) == (0, True, True), text


def _execute(folder, out, prompts):
    """What a driver's process does, which may be killed."""
    report = _run(folder, out, prompts).execute()
    sys.exit(0 if report.is_complete else 4)


@pytest.mark.parametrize(
    ("point", "in_worker"),
    [
        ("prompts.synced", False),
        ("plan.begun", False),
        ("shard.row_written", True),
        ("commits.renamed", False),
    ],
)
def test_a_kill_costs_no_answer(folder, tmp_path, point, in_worker):
    annotations = _boxes()
    prompts = _save(tmp_path / "boxes.json", _coco(annotations))
    out, marker = tmp_path / "out", tmp_path / "marker"
    run = partial(_execute, prompts=prompts)
    driver = ForkedDriver(folder, out, run=run, AMG_FAILPOINT=f"{point}=kill:{marker}")
    assert driver.wait() == (0 if in_worker else -signal.SIGKILL), driver.said()
    assert marker.exists(), driver.said()
    assert _run(folder, out, prompts).execute().is_complete
    assert _answers(out) == _expected(annotations)
