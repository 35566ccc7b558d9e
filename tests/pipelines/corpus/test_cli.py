"""The commands that run things: exit codes, and messages that name what is wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import prometheus_client
import pytest
from PIL import Image
from typer.testing import CliRunner

from amg.cli import app
from amg.errors import BlockedRunError, ConfigError
from amg.runs.folder import commit_file
from amg.runs.results import decode_mask, open_run
from amg.storage.stores import open_storage
from amg.view.overlay import draw_overlay
from pipelines.corpus.lease import hold_lease
from tests.pipelines.helpers import (
    DRIVER_VARIABLE,
    QUICK,
    contents,
    make_folder,
    make_run,
    running_workers,
    wait_until,
)
from tests.pipelines.stub import save_image

pytestmark = pytest.mark.usefixtures("forked_workers")
N_IMAGES = 10
OPTIONS = [f"--set={value}" for value in QUICK]
NANO = ["--device=cpu", "--set=generator.points_per_side=2", "--set=run.images_per_shard=1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("photos"), N_IMAGES)


@pytest.fixture
def failed(tmp_path):
    """A run in which one of two images failed."""
    folder = make_folder(tmp_path / "two", 2)
    (folder / "000.png").write_bytes(b"")
    make_run(folder, tmp_path / "failed").execute()
    return folder, tmp_path / "failed"


def _amg(*arguments, typed=None):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=typed)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def _answer(result):
    """The lines of stdout of a query that succeeds and says nothing else."""
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout.splitlines()


def _check(result, code, *said):
    assert result.exit_code == code, result.output
    for text in said:
        assert str(text) in result.output


def _start(command, inputs, out, *options):
    """A command in a process of its own, whose workers are real ones too."""
    code, path = "from amg.cli import app; app()", os.pathsep.join(filter(None, sys.path))
    return subprocess.Popen(
        [sys.executable, "-c", code, command, str(inputs), "--out", str(out), *options],
        env={**os.environ, DRIVER_VARIABLE: str(out), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_finished_run_is_said_to_be_so(folder, out):
    _check(_amg("run", folder, "--out", out, *OPTIONS), 0, "10 of 10 images (10 ok)", out)
    assert _answer(_amg("status", out))[:4] == [
        "state       finished",
        "images      10 of 10 (10 ok)",
        "masks       10",
        "shards      2 of 2",
    ]
    assert _answer(_amg("verify", out)) == ["10 rows, 0 problems"]
    assert _answer(_amg("gc", out)) == ["0 files, 0.0 MB deleted"]
    _check(_amg("retry-failed", out), 0, "10 of 10")


def test_a_run_with_failed_images_exits_with_three(failed):
    folder, out = failed
    said = "2 of 2 images (1 decode_error, 1 ok), 1 masks; 1 of 1 shards"
    _check(_amg("run", folder, "--out", out, *OPTIONS), 3, said)
    _check(_amg("status", out), 3, "2 of 2 (1 decode_error, 1 ok)")
    _check(_amg("verify", out), 0)


@pytest.mark.parametrize(("rate", "code"), [("0.5", 0), ("0.49", 3), ("1", 0)])
def test_failures_may_be_accepted(failed, rate, code):
    folder, out = failed
    _check(_amg("run", folder, "--out", out, *OPTIONS, "--accept-failures", rate), code)
    nothing = ["--status=oom", "--accept-failures", rate]
    _check(_amg("retry-failed", out, *nothing), code, "1 decode_error")


def _blocked(*_):
    raise BlockedRunError("no worker can be started: no room")


def test_a_run_that_cannot_go_on_exits_with_six(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.corpus.run.make_engine", _blocked)
    result = _amg("run", folder, "--out", tmp_path / "out", *OPTIONS)
    _check(result, 6, "error: no worker can be started: no room")


def test_an_unfinished_run_exits_with_four(out):
    (out / commit_file(1)).unlink()
    (out / "_SUCCESS").unlink()
    _check(_amg("status", out), 4, "8 of 10 (8 ok)", "1 of 2", "nobody is at work")
    result = _amg("verify", out)
    assert result.exit_code == 4
    said = ["8 rows, 0 problems", "unfinished: 1 of 2 shards are not committed"]
    assert result.stdout.splitlines() == said
    _check(_amg("retry-failed", out), 0, "others are not yet")


def test_options_of_lists(folder, out, tmp_path):
    (tmp_path / "list.txt").write_text(f"{folder}/000.png\n" * 3)
    _check(_amg("plan", tmp_path / "list.txt"), 2, "1 image ids occur more", "--on-duplicate")
    numbered = _amg("plan", tmp_path / "list.txt", "--on-duplicate=number")
    _check(numbered, 0, "images      3\n", "2 ids were there before: number")
    refused = _amg("plan", tmp_path / "list.txt", "--on-duplicate=skip", "--allow", tmp_path)
    _check(refused, 2, "line 1", f"--allow {folder}")
    moved = "--remap", f"/elsewhere={tmp_path}"
    _check(_amg("retry-failed", out, folder, "--limit=10", *moved), 0, "10 of 10")
    _check(_amg("retry-failed", out, folder, "--limit=9"), 2, "9 now", "1 gone")
    _check(_amg("run", folder, "--out", out, *OPTIONS, "--remap=x"), 2, "--remap 'x': expected OLD")


def test_damage_exits_with_five(out):
    (shard, *_) = open_run(out).commits.values()
    (out / shard.file).write_bytes(b"PAR1 or so")
    _check(_amg("verify", out), 5, shard.file, "sha256")
    _check(_amg("verify", out, "--workers", 2), 5, shard.file)
    result = _amg("verify", out, "--json")
    values = json.loads(result.stdout)
    assert (result.exit_code, values["n_rows"], values["unfinished"]) == (5, 2, None)
    assert {problem["shard"] for problem in values["problems"]} == {0}


@pytest.mark.parametrize("command", ["status", "verify", "gc", "retry-failed"])
def test_a_folder_without_a_run_exits_with_two(tmp_path, command):
    _check(_amg(command, tmp_path / "none"), 2, f"error: {tmp_path}/none holds no run")


@pytest.mark.parametrize("command", ["status", "verify", "gc", "retry-failed"])
def test_a_file_in_place_of_a_run_exits_with_five(tmp_path, command):
    (tmp_path / "file").write_text("")
    _check(_amg(command, tmp_path / "file"), 5, "error: cannot read ", f"{tmp_path}/file")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--workers", "2:1"], "--workers '2:1': expected 1 <= MIN <= MAX"),
        (["--workers", "0"], "--workers '0'"),
        (["--workers", "2:"], "--workers '2:': expected a number or MIN:MAX"),
        (["--workers", "many"], "--workers 'many'"),
        (["--slice", "3/2"], "--slice '3/2': expected 1 <= I <= N"),
        (["--slice", "0/2"], "--slice '0/2'"),
        (["--slice", "1"], "--slice '1': expected I/N"),
        (["--slice", "a/b"], "--slice 'a/b'"),
        (["--slice", "1/2", "--overwrite"], "--overwrite, --slice"),
        (["--engine", "spark"], "engine.name"),
        (["--progress", "loud"], "--progress 'loud'"),
        (["--model", "nemo"], "nemo"),
        (["--checkpoint", "/nowhere.pt"], "nowhere.pt"),
        (["--set", "generator.points=3"], "generator.points: no such key"),
        (["--set", "run.images_per_shard=0"], "run.images_per_shard"),
        (["--set", "nonsense"], "--set 'nonsense'"),
        (["--config", "/nowhere.yaml"], "/nowhere.yaml"),
        (["--max-failure-rate", "2"], "--max-failure-rate"),
        (["--limit", "0"], "--limit"),
        (["--memory-budget", "lots"], "generator.memory_budget"),
    ],
)
def test_mistakes_in_options_are_named_and_exit_with_two(folder, tmp_path, options, said):
    _check(_amg("run", folder, "--out", tmp_path / "out", *options), 2, said)
    left = [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert all(name.endswith(".lock") for name in left)


def test_options_of_retry_failed_reach_its_workers(failed, monkeypatch):
    _, out = failed

    def make(setup, n_shards):
        config = setup.config
        raise ConfigError(
            f"{config.generator.memory_budget} {config.model.device} {config.run.drain_s:g} "
            f"{config.engine.name} {config.engine.min_workers} {config.engine.max_workers} "
            f"{config.engine.address} {config.engine.cpus_per_worker} "
            f"{config.engine.gpus_per_worker} {sorted(setup.again)}"
        )

    monkeypatch.setattr("pipelines.corpus.run.make_engine", make)
    _check(_amg("retry-failed", out, "--set=run.drain_s=3"), 2, "None None 3 local 1 None None")
    options = ["--memory-budget=1MB", "--device=cuda:1", "--engine=ray", "--address=auto"]
    options += ["--workers=2:3", "--cpus-per-worker=4", "--gpus-per-worker=0.5"]
    options += ["--status=oom", "--status=decode_error"]
    said = "1000000 cuda:1 20 ray 2 3 auto 4.0 0.5 ['decode_error', 'oom']"
    _check(_amg("retry-failed", out, *options), 2, said)
    result = _amg("retry-failed", out, "--set=generator.points_per_side=3")
    _check(result, 2, "not the run that was planned", "generator.points_per_side")
    _check(_amg("retry-failed", out, "--status=ok"), 2, "status 'ok': rows fail as one of crashed")
    _check(_amg("retry-failed", out, "--slice=2/1"), 2, "--slice '2/1'")


def test_a_finished_run_is_deleted_by_those_alone_who_say_so(folder, out, monkeypatch):
    monkeypatch.setattr("pipelines.corpus.run.make_engine", _blocked)
    command, before = ["run", folder, "--out", out, *OPTIONS, "--overwrite"], contents(out)
    _check(_amg(*command), 2, f"--overwrite: {out} holds a finished run; give --yes too")
    with monkeypatch.context() as patched:
        patched.setattr("amg.cli.options._can_ask", lambda: True)
        _check(_amg(*command, typed="n\n"), 2, "Delete it?", "nothing was deleted")
        assert contents(out) == before
        shutil.copytree(out, asked := out.with_name("asked"))
        _check(_amg("run", folder, "--out", asked, *command[4:], typed="y\n"), 6)
        assert contents(asked) == []
    gone = ["run", out / "no-such-folder", *command[2:], "--yes"]
    _check(_amg(*gone), 2, "No such file")
    assert contents(out) == before
    _check(_amg(*command, "--yes"), 6)
    assert contents(out) == []
    _check(_amg(*command), 6)  # nothing is finished there


def test_metrics_are_for_this_machine_unless_told_otherwise(monkeypatch):
    asked = []
    monkeypatch.setattr(
        prometheus_client, "start_http_server", lambda port, addr: asked.append((port, addr))
    )
    monkeypatch.setattr(prometheus_client, "Gauge", lambda *_: None)
    options = ["--metrics-port=9400"]
    for more in ([], ["--metrics-address=0.0.0.0"]):
        _amg("retry-failed", "/nowhere", *options, *more)
    assert asked == [(9400, "127.0.0.1"), (9400, "0.0.0.0")]
    said = "--metrics-address: give --metrics-port too"
    _check(_amg("retry-failed", "/nowhere", "--metrics-address=0.0.0.0"), 2, said)


def test_mistakes_in_inputs_are_named_and_exit_with_two(folder, tmp_path):
    out = tmp_path / "out"
    _check(_amg("run", "/nowhere", "--out", out), 2, "inputs: '/nowhere'")
    _check(_amg("run", folder, folder, "--out", out), 2, "10 image ids occur more than once")
    _check(_amg("run", folder, "--out", "nosuch://x/y"), 2, "nosuch")
    _check(_amg("run", folder), 2, "--out")
    _check(_amg("plan", "/nowhere"), 2, "inputs: '/nowhere'")


def test_another_run_is_not_touched_and_exits_with_two(folder, out):
    before = contents(out)
    result = _amg("run", folder, "--out", out, *OPTIONS, "--set=generator.points_per_side=3")
    _check(result, 2, "holds another run", "generator.points_per_side: ", "--overwrite")
    result = _amg("run", folder, "--out", out, *OPTIONS, "--limit=5")
    _check(result, 2, "10 images planned, 5 now", "'005.png'")
    assert contents(out) == before


@pytest.mark.parametrize("command", ["run", "gc", "retry-failed"])
def test_a_run_that_is_in_use_exits_with_four(folder, out, command):
    arguments = [folder, "--out", out, *OPTIONS] if command == "run" else [out]
    with hold_lease(open_storage(out)):
        _check(_amg(command, *arguments), 4, f"{out} is in use", f"process {os.getpid()}")


def test_an_output_that_cannot_be_written_exits_with_five(folder, tmp_path):
    (tmp_path / "file").write_text("")
    _check(_amg("run", folder, "--out", tmp_path / "file"), 5, "error: cannot ", tmp_path / "file")


def test_status_is_json_for_programs(out):
    (out / commit_file(1)).unlink()
    result = _amg("status", out, "--json")
    assert result.exit_code == 4
    values = json.loads(result.stdout)
    assert (values["n_images"], values["n_shards"], values["n_committed"]) == (10, 2, 1)
    assert (values["is_finished"], values["drivers"]) == (False, [])
    assert values["tally"]["statuses"] == {"ok": 8}
    assert result.stderr == ""
    with hold_lease(open_storage(out), (1, 4)):
        (driver,) = json.loads(_amg("status", out, "--json").stdout)["drivers"]
        assert (driver["pid"], driver["slice"]) == (os.getpid(), "2/4")
        said = f"process {os.getpid()} on {driver['host']}, slice 2/4"
        _check(_amg("status", out), 4, "running", said)


def test_a_plan_says_what_would_be_done_and_writes_nothing(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = _amg("plan", folder, *OPTIONS, "--limit", 9, "--seconds-per-image", 400)
    n_bytes = sum(path.stat().st_size for path in sorted(folder.iterdir())[:9])
    _check(result, 0, "images  9\n", f"{n_bytes / 1e6:.1f} MB", "2 of 8 images", "1.0 hours")
    values = json.loads(_amg("plan", folder, *OPTIONS, "--json").stdout)
    assert (values["n_images"], values["n_shards"], values["worker_s"]) == (10, 2, None)
    assert list(tmp_path.iterdir()) == []


def test_garbage_is_named_before_it_goes(out):
    litter = out / "data" / "part-00001.deadbeef.parquet"
    litter.write_bytes(b"x" * 200_000)
    _check(_amg("gc", out, "--dry-run"), 0, f"data/{litter.name}", "1 files, 0.2 MB would be")
    assert litter.exists()
    values = json.loads(_amg("gc", out, "--dry-run", "--json").stdout)
    files = {f"data/{litter.name}": 200_000}
    assert values == {"is_deleted": False, "n_bytes": 200_000, "files": files}
    _check(_amg("gc", out), 0, f"data/{litter.name}", "1 files, 0.2 MB deleted")
    assert not litter.exists()


def test_no_message_quotes_the_secrets_of_an_address(s3, folder):
    out = f"s3://{s3}/run?signature=hunter2"
    make_run(folder, out, limit=1).execute()
    for command in ("status", "verify", "gc", "retry-failed"):
        result = _amg(command, out)
        assert (result.exit_code, "hunter2" in result.output) == (0, False)
    for n in (1, 2):
        result = _amg("run", folder, "--out", out, *OPTIONS, f"--limit={n}")
        assert (result.exit_code, "hunter2" in result.output) == (2 * (n - 1), False)
        assert f"s3://{s3}/run" in result.output
    assert "hunter2" not in _amg("status", f"s3://key:hunter2@{s3}/run").output


def test_long_messages_are_not_broken_into_lines(tmp_path):
    place = tmp_path / ("long" * 20) / ("path" * 20)
    _check(_amg("status", place), 2, f"{place} holds no run")


@pytest.fixture(scope="module")
def segmented(tmp_path_factory):
    """Three images, two of them good, and what `amg run` says of them with the real model."""
    base = tmp_path_factory.mktemp("real")
    (base / "in").mkdir()
    for i in range(3):
        save_image(base / "in" / f"{i}.png", i, size_hw=(40, 60))
    good = (base / "in" / "1.png").read_bytes()
    (base / "in" / "1.png").write_bytes(good[:100])
    process = _start("run", base / "in", base / "out", *NANO, "--progress=json")
    output, errors = process.communicate(timeout=240)
    return base, good, process.returncode, output, errors


def test_the_model_runs_from_the_command_line(segmented):
    base, good, code, _, errors = segmented
    assert code == 3, errors
    assert "3 of 3 images (1 decode_error" in errors
    assert str(base / "out") in errors
    rows = {row.image_id: row for row in open_run(base / "out").rows()}
    assert rows["1.png"].status == "decode_error"
    assert {rows["0.png"].status, rows["2.png"].status} <= {"ok", "empty"}

    (base / "in" / "1.png").write_bytes(good)
    result = _amg("retry-failed", base / "out", "--device=cpu")
    _check(result, 0, "3 of 3 images (")
    again = {row.image_id: row for row in open_run(base / "out").rows()}
    assert again.pop("1.png").status in ("ok", "empty")
    assert again == {name: rows[name] for name in again}
    _check(_amg("gc", base / "out"), 0, "1 files")
    _check(_amg("verify", base / "out"), 0, "3 rows, 0 problems")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_what_can_be_taken_up_and_exits_with_four(folder, tmp_path, number):
    out = tmp_path / "out"
    process = _start("run", folder, out, *OPTIONS)
    wait_until(lambda: (out / "events.jsonl").exists() or process.poll() is not None)
    process.send_signal(number)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 4, errors
    assert f"stopped: {number.name}" in errors
    assert "run the same command again to go on" in errors
    assert "Traceback" not in errors
    assert running_workers(out) == []
    _check(_amg("status", out), 4)
    assert make_run(folder, out).execute().is_complete


def test_show_draws_the_masks_over_an_image(folder, tmp_path):
    out = tmp_path / "sub" / "overlay[red].png"
    options = ["--device=cpu", "--set=generator.points_per_side=2", "--side-by-side"]
    _check(_amg("show", folder / "000.png", "--out", out, *options), 0, "masks: ", out)
    assert Image.open(out).size == (2 * 32 + 8, 24)


def test_show_draws_what_a_run_has_found(folder, tmp_path, monkeypatch):
    make_run(folder, tmp_path / "run").execute()
    monkeypatch.chdir(tmp_path)
    _check(_amg("show", "003.png", "--from", tmp_path / "run"), 0, "1 masks: 003.masks.png")
    image = np.array(Image.open(folder / "003.png"))
    masks = open_run(tmp_path / "run").row("003.png").masks
    drawn = np.array(Image.open(tmp_path / "003.masks.png"))
    np.testing.assert_array_equal(drawn, draw_overlay(image, masks))
    bits = decode_mask(masks[0])
    y, x = np.argwhere(bits)[0]
    under = ["show", "003.png", "--from", tmp_path / "run", "--outlines", "--labels", "id"]
    _check(_amg(*under, "--point", f"{x},{y}"), 0, "0.500", f"{bits.sum()}", "1 masks")
    y, x = np.argwhere(~bits)[0]
    _check(_amg(*under, "--point", f"{x},{y}"), 0, "0 masks")


def test_show_names_what_a_run_or_an_image_lacks(failed, tmp_path):
    _, out = failed
    _check(_amg("show", "7.png", "--from", out), 2, "no image '7.png' was planned")
    _check(_amg("show", "000.png", "--from", out), 2, "000.png: the run could not segment it")
    _check(_amg("show", "1.png", "--from", tmp_path / "no"), 2, "no holds no run")
    for point in ("1", "a,b", "99,0", "0,-1"):
        result = _amg("show", "001.png", "--from", out, "--point", point)
        _check(result, 2, "--point ", point)


def test_show_names_what_it_cannot_read_or_write(folder, tmp_path):
    (tmp_path / "file").write_text("no image")
    _check(_amg("show", tmp_path / "none.png", "--out", tmp_path / "a.png"), 2, "none.png")
    _check(_amg("show", tmp_path / "file", "--out", tmp_path / "a.png"), 2, f"{tmp_path}/file")
    out = tmp_path / "file" / "a.png"
    options = ["--device=cpu", "--set=generator.points_per_side=2"]
    _check(_amg("show", folder / "000.png", "--out", out, *options), 5, out)


def test_models_are_listed():
    names = ("nano", "mobile_sam", "sam_vit_b", "sam_vit_l", "sam_vit_h")
    _check(_amg("models"), 0, *names)
