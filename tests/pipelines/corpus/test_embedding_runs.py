"""Runs of embeddings, and runs of masks that take these in place of images."""

import json
import shutil
import signal
import sys
from functools import partial

import pytest
from typer.testing import CliRunner

from amg.cli import app
from amg.config import load_config
from amg.errors import ConfigError, RunError
from amg.runs.folder import CONFIG, PLAN
from amg.runs.results import open_run
from pipelines.corpus.run import Run, retry_failed
from pipelines.corpus.verify import verify
from tests.pipelines.forks import ForkedDriver
from tests.pipelines.helpers import QUICK, contents, make_folder, make_run
from tests.pipelines.stub import (
    KILL,
    RAISE,
    make_embedding_stub,
    make_prompted_stub,
    make_stub,
    save_image,
)

N_IMAGES = 20
pytestmark = pytest.mark.usefixtures("forked_workers")


def _embed(inputs, out, *overrides, **options):
    config = load_config(None, [*QUICK, *overrides])
    options = {"embed": "float16", "make_generator": make_embedding_stub, **options}
    return Run([inputs], out, config, **options)


def _run_from(kept, out, *overrides, **options):
    """Shards are those of the embeddings."""
    config = load_config(None, ["model.device=cpu", "run.images_per_batch=2", *overrides])
    options = {"make_generator": make_stub, **options}
    return Run([], out, config, embeddings=kept, **options)


@pytest.fixture(scope="module")
def folder(forked_workers, tmp_path_factory):
    """Images, one of which is none."""
    folder = make_folder(tmp_path_factory.mktemp("photos"), N_IMAGES)
    (folder / "013.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def kept(folder, tmp_path_factory):
    """The embeddings of all of them."""
    out = tmp_path_factory.mktemp("kept") / "emb"
    report = _embed(folder, out).execute()
    assert report.is_complete
    assert report.tally.statuses == {"decode_error": 1, "ok": N_IMAGES - 1}
    assert (report.tally.masks, report.embed_dtype) == (0, "float16")
    return out


@pytest.fixture(scope="module")
def expected(folder, tmp_path_factory):
    """What a run of the images has."""
    out = tmp_path_factory.mktemp("expected") / "out"
    make_run(folder, out).execute()
    return contents(out)


def test_masks_are_those_of_a_run_of_the_images(folder, kept, expected, tmp_path):
    report = _run_from(kept, tmp_path / "out").execute()
    assert report.is_complete
    assert report.tally.masks == N_IMAGES - 1
    assert contents(tmp_path / "out") == expected
    bad = [[*open_run(out).rows()][13] for out in (kept, tmp_path / "out")]
    assert bad[0].status == bad[1].status == "decode_error"
    assert bad[0].error == bad[1].error
    assert _run_from(kept, tmp_path / "out").execute().session_images == 0
    assert not [p for verdict in verify(str(tmp_path / "out")) for p in verdict.problems]


def test_images_are_not_needed_any_more(kept, expected, tmp_path):
    folder = make_folder(tmp_path / "photos", N_IMAGES)
    _embed(folder, tmp_path / "emb").execute()
    shutil.rmtree(folder)
    config = ["run.max_unread_in_a_row=1"]
    report = _run_from(tmp_path / "emb", tmp_path / "out", *config).execute()
    assert report.tally.statuses == {"ok": N_IMAGES}
    rows = contents(tmp_path / "out")
    assert rows[:13] == expected[:13]


def test_prompts_are_asked_of_embeddings(folder, kept, tmp_path):
    entries = [
        {"image_id": f"{i:03d}.png", "bbox": [i, 1, 4, 4], "id": i} for i in (3, 13, 17, 2, 40)
    ]
    entries.append({"image_id": "003.png", "bbox": [90, 1, 4, 4], "id": "far"})
    prompts = tmp_path / "boxes.json"
    prompts.write_text(json.dumps(entries))
    report = _run_from(
        kept, tmp_path / "out", prompts=prompts, make_generator=make_prompted_stub
    ).execute()
    assert (report.tally.masks, report.tally.prompt_errors, report.prompts.asked) == (3, 1, 5)
    Run(
        [folder],
        tmp_path / "of-images",
        load_config(None, QUICK),
        prompts=prompts,
        make_generator=make_prompted_stub,
    ).execute()
    assert contents(tmp_path / "out") == contents(tmp_path / "of-images")
    assert not [p for verdict in verify(str(tmp_path / "out")) for p in verdict.problems]


def test_an_image_that_kills_its_worker_costs_no_other_its_masks(tmp_path):
    folder = make_folder(tmp_path / "photos", 10, {2: KILL, 4: RAISE})
    _embed(folder, tmp_path / "emb").execute()
    report = _run_from(tmp_path / "emb", tmp_path / "out").execute()
    assert report.tally.statuses == {"ok": 8, "crashed": 2}
    for i in (2, 4):
        save_image(folder / f"{i:03d}.png", i)
    make_run(folder, tmp_path / "expected").execute()
    whole, found = contents(tmp_path / "expected"), contents(tmp_path / "out")
    assert [row[1] for row in found] == ["crashed" if i in (2, 4) else "ok" for i in range(10)]
    assert all(found[i] == whole[i] for i in range(10) if i not in (2, 4))


def test_what_failed_is_done_again_in_both(folder, kept, expected, tmp_path):
    """First in the run of embeddings, then in that of masks, which finds them where they are."""
    photos, emb = shutil.copytree(folder, tmp_path / "photos"), tmp_path / "emb"
    _embed(photos, emb).execute()
    _run_from(emb, tmp_path / "out").execute()
    save_image(photos / "013.png", 13)
    report = retry_failed(tmp_path / "out", make_generator=make_stub)
    assert report.tally.failed == 1
    report = retry_failed(emb, make_generator=make_embedding_stub)
    assert report.tally.statuses == {"ok": N_IMAGES}
    assert all(row.embedding is not None for row in open_run(emb).rows())
    report = retry_failed(tmp_path / "out", make_generator=make_stub)
    assert report.tally.statuses == {"ok": N_IMAGES}
    make_run(photos, tmp_path / "expected").execute()
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")


def test_embeddings_that_have_moved_are_found_where_they_are_said_to_be(
    folder, kept, expected, tmp_path, monkeypatch
):
    emb, out = shutil.copytree(kept, tmp_path / "emb"), tmp_path / "out"
    _run_from(emb, out).execute()
    emb.rename(tmp_path / "elsewhere")
    (out / "commits" / "00001.json").unlink()
    monkeypatch.chdir(tmp_path)
    assert _run_from("elsewhere", out).execute().is_complete
    assert contents(out) == expected
    with pytest.raises(RunError, match="emb holds no run"):  # where they were
        retry_failed(out, make_generator=make_stub)
    _embed(folder, emb, embed="float32").execute()
    with pytest.raises(RunError, match="emb holds other embeddings than the run was planned with"):
        retry_failed(out, make_generator=make_stub)


def _execute(_, out, kept):
    report = _run_from(kept, out).execute()
    sys.exit(0 if report.is_complete else 4)


@pytest.mark.parametrize(
    ("point", "in_worker"), [("shard.row_written", True), ("commits.renamed", False)]
)
def test_a_kill_costs_no_mask(kept, expected, tmp_path, point, in_worker):
    out, marker = tmp_path / "out", tmp_path / "marker"
    run = partial(_execute, kept=kept)
    driver = ForkedDriver(kept, out, run=run, AMG_FAILPOINT=f"{point}=kill:{marker}")
    assert driver.wait() == (0 if in_worker else -signal.SIGKILL), driver.said()
    assert marker.exists(), driver.said()
    assert _run_from(kept, out).execute().is_complete
    assert contents(out) == expected


def test_a_run_of_embeddings_goes_on_after_a_kill(folder, kept, tmp_path):
    out, marker = tmp_path / "emb", tmp_path / "marker"
    failpoint = f"commits.renamed=kill:{marker}"
    driver = ForkedDriver(folder, out, run=_execute_embed, AMG_FAILPOINT=failpoint)
    assert driver.wait() == -signal.SIGKILL, driver.said()
    assert _embed(folder, out).execute().is_complete
    for row, other in zip(open_run(out).rows(), open_run(kept).rows(), strict=True):
        assert (row.image_id, row.status) == (other.image_id, other.status)
        if row.status == "ok":
            assert (row.embedding.arrays["pixels"] == other.embedding.arrays["pixels"]).all()


def _execute_embed(inputs, out):
    sys.exit(0 if _embed(inputs, out).execute().is_complete else 4)


def test_folders_do_not_mix(folder, kept, tmp_path):
    emb = shutil.copytree(kept, tmp_path / "emb")
    for again, said in (
        (_embed(folder, emb, embed="float32"), r"embed\.dtype: 'float16' planned, 'float32' now"),
        (make_run(folder, emb), r"embeddings planned, masks now\)"),
    ):
        with pytest.raises(RunError, match=said):
            again.execute()
    out = tmp_path / "out"
    _run_from(emb, out).execute()
    for again, said in (
        (_embed(folder, out), r"masks planned, embeddings now\)"),
        (make_run(folder, out), r"embeddings: .* planned, None now"),
    ):
        with pytest.raises(RunError, match=said):
            again.execute()


REFUSED = {
    r"^generator\.crop_n_layers: an embedding is of a whole image": {
        "overrides": ["generator.crop_n_layers=1"]
    },
    r"^run\.images_per_shard: the embeddings have 8": {"overrides": ["run.images_per_shard=9"]},
    r"^model\.imgsz: the embeddings have the model's own": {"overrides": ["model.imgsz=224"]},
    "^inputs: the embeddings have theirs": {"limit": 3},
    "^prompts: 'nowhere.json'": {"prompts": "nowhere.json"},
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_contradicts_the_embeddings_is_refused(kept, tmp_path, message):
    options = dict(REFUSED[message])
    overrides = options.pop("overrides", [])
    with pytest.raises(ConfigError, match=message):
        _run_from(kept, tmp_path / "out", *overrides, **options).execute()
    assert not (tmp_path / "out" / PLAN).exists()


def test_embeddings_that_cannot_be_used_are_refused(folder, kept, finished_masks, tmp_path):
    emb = shutil.copytree(kept, tmp_path / "emb")
    with pytest.raises(ConfigError, match="a run cannot be made of itself"):
        _run_from(emb, emb, overwrite=True).execute()
    assert (emb / "_SUCCESS").exists()
    with pytest.raises(ConfigError, match=f"{finished_masks.name} is a run of masks"):
        _run_from(finished_masks, tmp_path / "out").execute()
    (emb / "commits" / "00001.json").unlink()
    with pytest.raises(ConfigError, match="1 of 3 shards are not committed: finish it first"):
        _run_from(emb, tmp_path / "out").execute()
    plan = json.loads((kept / PLAN).read_text())
    plan["identity"]["model"]["weights_sha256"] = "f" * 64
    shutil.rmtree(emb)
    shutil.copytree(kept, emb)
    (emb / PLAN).write_text(json.dumps(plan))
    with pytest.raises(ConfigError, match=r"^model: the embeddings are of nano, weights fffffffff"):
        _run_from(emb, tmp_path / "out").execute()
    for options in ({"embeddings": kept}, {"prompts": "x.json"}, {"embed": "int8"}):
        with pytest.raises(ConfigError, match=r"embeddings are to be made|'int8': expected one of"):
            _embed(folder, tmp_path / "out", **options)
    with pytest.raises(ConfigError, match="crop_n_layers"):
        _embed(folder, tmp_path / "out", "generator.crop_n_layers=1").execute()


@pytest.fixture
def finished_masks(kept, tmp_path):
    _run_from(kept, tmp_path / "masks").execute()
    return tmp_path / "masks"


def test_who_wants_masks_is_told(kept, finished_masks, tmp_path):
    for command in (
        ["report", kept],
        ["export", kept, "--to", "coco", "--out", tmp_path / "coco"],
        ["eval", kept, "--against", finished_masks],
        ["eval", finished_masks, "--against", kept],
        ["show", "003.png", "--from", kept],
        ["refilter", kept, "--out", tmp_path / "other", "--nms", "0.5"],
        ["run", tmp_path, "--prompts", kept, "--out", tmp_path / "other"],
    ):
        result = CliRunner().invoke(app, [*map(str, command)])
        said = " ".join(result.output.split())
        assert result.exit_code == 2, said
        assert f"{kept} holds embeddings, and no masks: `amg run --embeddings" in said


def test_the_commands(tmp_path):
    """With the built-in model: sizes are said, masks are there, all is in order."""
    folder = make_folder(tmp_path / "photos", 3)
    few = ["model.device=cpu", "model.imgsz=64", "run.images_per_shard=2"]
    options = [f"--set={value}" for value in few]

    def amg(*arguments):
        result = CliRunner().invoke(app, [*map(str, arguments)])
        return result.exit_code, " ".join(result.output.split())

    code, said = amg("plan", folder, "--embed", "float32", *options)
    assert (code, "embeddings 0.1 MB an image" in said) == (0, True), said
    code, said = amg("embed", folder, "--out", tmp_path / "emb", *options)
    assert (code, "embeddings in float16" in said) == (0, True), said
    for command in ("status", "verify"):
        code, said = amg(command, tmp_path / "emb")
        assert (code, "0 problems" in said or "embeddings in float16" in said) == (0, True), said
    less = "--set=generator.points_per_side=4"
    code, said = amg("run", "--embeddings", tmp_path / "emb", "--out", tmp_path / "out", less)
    assert (code, "3 of 3 images" in said) == (0, True), said
    assert "imgsz: 64" in (tmp_path / "out" / CONFIG).read_text()
    assert amg("run", "--out", tmp_path / "out")[0] == 2
    row = open_run(tmp_path / "emb").row("002.png")
    assert {name: array.shape for name, array in row.embedding.arrays.items()} == {
        "embedding": (256, 4, 4),
        "at_quarter": (32, 16, 16),
        "at_eighth": (64, 8, 8),
    }


def test_verify_misses_an_embedding(kept, tmp_path):
    """The stub's are not of the size that the model's would have."""
    problems = [p for verdict in verify(str(kept)) for p in verdict.problems]
    assert (
        problems[0]
        == "000.png: its embedding has 4608 bytes in float16, not 1605632 bytes in float16"
    )
