"""Whatever dies on the way: nothing is lost, nothing is done twice, committed bytes stay."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from amg import StorageError
from amg.errors import InterruptedRunError
from amg.runs.folder import commit_file, read_commits, require_plan
from amg.storage.stores import open_storage
from pipelines.corpus.commit import sweep_partials
from pipelines.corpus.engines import local
from pipelines.corpus.run import summarize
from pipelines.corpus.verify import verify
from tests.pipelines.forks import ForkedDriver, running_forks
from tests.pipelines.helpers import (
    contents,
    make_folder,
    make_run,
    running_workers,
    start_driver,
    wait_until,
)
from tests.pipelines.stub import GATE_VARIABLE, SLEEP_VARIABLE, STUCK, STUCK_VARIABLE

pytestmark = pytest.mark.usefixtures("forked_workers")
SHARDS = "run.images_per_shard=4"

_SMALL_FILES = ("config", "plan", "attempts", "commits", "report", "_SUCCESS")
# Every step between an image's row and a finished run, on a local file system.
FAILPOINTS = (
    *(f"shard.{step}" for step in ("begun", "row_written", "closed", "verified")),
    *(f"{file}.{step}" for file in ("inputs", "data") for step in ("synced", "renamed")),
    *(
        f"{file}.{step}"
        for file in _SMALL_FILES
        for step in ("begun", "half_written", "synced", "renamed")
    ),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("faults") / "in", 10)


@pytest.fixture(scope="module")
def expected(folder, tmp_path_factory):
    """What an uninterrupted run commits."""
    out = tmp_path_factory.mktemp("faults") / "out"
    make_run(folder, out, SHARDS).execute()
    return contents(out)


def committed_bytes(out):
    """The files that commits name, and their bytes: those of a run without a plan are none."""
    storage = open_storage(out)
    if storage.size("plan.json") is None:
        return {}
    commits = read_commits(storage, require_plan(storage)).values()
    return {commit.file: (Path(out) / commit.file).read_bytes() for commit in commits}


def check_whole(out, expected, before=None):
    """The rows are those of an uninterrupted run, and what was committed before is as it was."""
    assert contents(out) == expected
    assert [problem for verdict in verify(str(out)) for problem in verdict.problems] == []
    after = committed_bytes(out)
    assert {name: after.get(name) for name in before or {}} == (before or {})


def fail_and_resume(folder, tmp_path, expected, point, action):
    """Run with a failpoint; take it up again if it did not finish; look at the result."""
    out, marker = tmp_path / "out", tmp_path / "marker"
    failpoint = f"{point}={action}:{marker}"
    driver = ForkedDriver(folder, out, SHARDS, AMG_FAILPOINT=failpoint)
    code = driver.wait()
    assert marker.exists(), f"{point} was never reached: {driver.said()}"
    before = committed_bytes(out)
    if code != 0:
        report = make_run(folder, out, SHARDS).execute()
        assert report.is_complete
    check_whole(out, expected, before)
    return code


@pytest.mark.parametrize("point", FAILPOINTS)
def test_a_kill_at_every_step_loses_nothing(folder, tmp_path, expected, point):
    code = fail_and_resume(folder, tmp_path, expected, point, "kill")
    in_worker = point.startswith(("shard.", "data.", "attempts."))
    assert code == (0 if in_worker else -signal.SIGKILL)
    wait_until(lambda: running_forks(tmp_path / "out") == [])


@pytest.mark.parametrize("point", FAILPOINTS)
def test_an_error_at_every_step_loses_nothing(folder, tmp_path, expected, point):
    fail_and_resume(folder, tmp_path, expected, point, "raise")


@pytest.mark.slow
@pytest.mark.parametrize("point", FAILPOINTS)
def test_a_delay_at_every_step_loses_nothing(folder, tmp_path, expected, point):
    assert fail_and_resume(folder, tmp_path, expected, point, "delay") == 0


@pytest.mark.parametrize("point", ["data.synced", "commits.half_written", "inputs.synced"])
def test_a_full_disk_ends_the_run_and_says_so(folder, tmp_path, expected, point, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setenv("AMG_FAILPOINT", f"{point}=full")
    with pytest.raises(StorageError, match="No space left on device"):
        make_run(folder, out, SHARDS).execute()
    before = committed_bytes(out)
    monkeypatch.delenv("AMG_FAILPOINT")
    assert make_run(folder, out, SHARDS).execute().is_complete
    check_whole(out, expected, before)


def test_a_limit_on_file_sizes_is_like_a_full_disk(folder, tmp_path, expected):
    """The kernel's own refusal, at whatever write comes first."""
    limits = (0, 300, 2000, 4500)
    driver = ForkedDriver(folder, tmp_path / "out", *map(str, limits), run=run_under_limits)
    assert driver.wait() == 0, driver.said()
    for limit in limits:
        out = tmp_path / f"out-{limit}"
        before = committed_bytes(out)
        assert make_run(folder, out, SHARDS).execute().is_complete
        check_whole(out, expected, before)


def run_under_limits(inputs, out, *limits):
    """Run into a folder for each limit, and be refused; workers begin under the limit as well."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(local, "subprocess", subprocess)
        for limit in limits:
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
            with pytest.raises(StorageError):
                make_run(inputs, f"{out}-{limit}", SHARDS).execute()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)


def test_an_output_that_cannot_be_written_is_named(folder, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="file/out"):
        make_run(folder, tmp_path / "file" / "out").execute()


def test_killing_the_driver_ends_its_workers(folder, tmp_path, expected):
    out = tmp_path / "out"
    driver = start_driver(folder, out, SHARDS, **{GATE_VARIABLE: f"6:{tmp_path / 'never'}"})
    wait_until(lambda: summarize(out).n_committed > 0 if (out / "plan.json").exists() else False)
    before = committed_bytes(out)
    assert len(running_workers(out)) == 1
    driver.kill()
    driver.wait()
    wait_until(lambda: running_workers(out) == [])
    report = make_run(folder, out, SHARDS).execute()
    assert report.is_complete
    assert report.session_images < 10
    check_whole(out, expected, before)


def test_a_stuck_worker_ends_with_its_driver(tmp_path):
    folder = make_folder(tmp_path / "in", 3, {1: STUCK})
    driver = start_driver(folder, tmp_path / "out", **{STUCK_VARIABLE: str(tmp_path / "stuck")})
    wait_until((tmp_path / "stuck").exists)
    assert len(running_workers(tmp_path / "out")) == 1
    driver.kill()
    driver.wait()
    wait_until(lambda: running_workers(tmp_path / "out") == [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_in_order(folder, tmp_path, expected, number):
    out, gate = tmp_path / "out", tmp_path / "gate"
    driver = ForkedDriver(folder, out, SHARDS, **{GATE_VARIABLE: f"1:{gate}"})
    wait_until(lambda: (out / "attempts").exists() and any((out / "attempts").iterdir()))
    driver.send_signal(number)
    gate.touch()
    assert driver.wait() == 4
    assert running_forks(out) == []
    assert json.loads((out / "report.json").read_text())["stopped"] == number.name
    assert list((out / "attempts").iterdir()) == []
    before = committed_bytes(out)
    assert 0 < len(before) < 3  # the shard at work was finished
    assert make_run(folder, out, SHARDS).execute().is_complete
    check_whole(out, expected, before)


def test_a_second_signal_drops_the_shard(folder, tmp_path):
    out = tmp_path / "out"
    never = {GATE_VARIABLE: f"1:{tmp_path / 'never'}"}
    driver = ForkedDriver(folder, out, SHARDS, "run.drain_s=1000", **never)
    wait_until(lambda: (out / "attempts").exists() and any((out / "attempts").iterdir()))
    driver.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert driver.poll() is None

    def is_over():
        driver.send_signal(signal.SIGINT)  # two that come at once are one
        return driver.poll() is not None

    wait_until(is_over)
    assert driver.wait() == 4
    assert running_forks(out) == []
    assert not any(path.name.endswith(".partial") for path in (out / "data").iterdir())


def test_half_written_files_go_with_their_attempts_alone(tmp_path):
    names = (
        "data/.part-00001.deadbeef.parquet.00000001.partial",
        "attempts/.00001.deadbeef.json.00000002.partial",
        "data/.part-00001.cafecafe.parquet.00000003.partial",
        "attempts/.00001.cafecafe.json.00000004.partial",
        "data/part-00001.deadbeef.parquet",
    )
    storage = open_storage(tmp_path)
    for name in names:
        storage.write(name, b"")
    sweep_partials(storage, ["deadbeef"])
    assert [name for name in names if storage.size(name) is not None] == list(names[2:])


def test_a_second_driver_is_refused(folder, tmp_path):
    out = tmp_path / "out"
    driver = start_driver(folder, out, SHARDS, **{SLEEP_VARIABLE: "0.5"})
    wait_until((out / "plan.json").exists)
    with pytest.raises(InterruptedRunError, match=f"process {driver.pid}"):
        make_run(folder, out, SHARDS).execute()
    driver.kill()
    driver.wait()
    wait_until(lambda: running_workers(out) == [])
    assert make_run(folder, out, SHARDS).execute().is_complete


def test_a_file_published_late_is_not_committed(folder, tmp_path, expected):
    """A worker that was given up may still publish: nothing names its file."""
    out = tmp_path / "out"
    make_run(folder, out, SHARDS).execute()
    before = committed_bytes(out)
    real = sorted((out / "data").iterdir())[0]
    zombie = real.with_name("part-00000.deadbeef.parquet")
    zombie.write_bytes(b"late, and not even a shard")
    (out / commit_file(1)).unlink()
    (out / "_SUCCESS").unlink()
    assert make_run(folder, out, SHARDS).execute().is_complete
    before.pop(next(name for name in before if "part-00001" in name))
    check_whole(out, expected, before)


def test_random_kills_of_workers_and_drivers_lose_nothing(tmp_path):
    forked = {"start": ForkedDriver, "workers_of": running_forks, "image_s": 0.02}
    soak(tmp_path, n_images=60, n_kills=12, seed=1, **forked)


@pytest.mark.large
def test_two_hundred_random_kills_lose_nothing(tmp_path):
    print(soak(tmp_path, n_images=600, n_kills=200, seed=2))  # noqa: T201 - the line to keep


def soak(
    tmp_path, n_images, n_kills, seed, start=start_driver, workers_of=running_workers, image_s=0.05
):
    """Run until `n_kills` workers and drivers were killed at random, then once to the end."""
    rng = random.Random(seed)
    folder, out = make_folder(tmp_path / "in", n_images), tmp_path / "out"
    make_run(folder, tmp_path / "calm").execute()
    # So many kills in so short a time hit some image more than once by chance.
    options = ["engine.max_workers=2", "run.max_kills_per_image=50", "run.max_attempts=50"]
    kills = {"worker": 0, "driver": 0}
    before: dict[str, bytes] = {}
    n_commits = 0
    started = time.monotonic()
    while sum(kills.values()) < n_kills:
        driver = start(folder, out, *options, **{SLEEP_VARIABLE: str(image_s)})
        while driver.poll() is None and sum(kills.values()) < n_kills:
            # At any moment of a shard, but not always before the first is done.
            n_ready = count_events(out, "worker_ready")
            while count_events(out, "worker_ready") == n_ready and driver.poll() is None:
                time.sleep(0.02)
            time.sleep(rng.uniform(0, 30 * image_s))
            workers = workers_of(out)
            if workers and rng.random() < 0.8:
                kill(rng.choice(workers))
                kills["worker"] += 1
            elif driver.poll() is None:
                driver.kill()
                kills["driver"] += 1
        driver.kill()
        driver.wait()
        wait_until(lambda: workers_of(out) == [])
        after = committed_bytes(out)
        assert {name: after.get(name) for name in before} == before
        before = after
        if len(before) == -(-n_images // 8):  # all done, but not all kills: begin anew
            # The driver may have died between the last commit and _SUCCESS: the next one ends it.
            assert make_run(folder, out, *options).execute().is_complete
            check_whole(out, contents(tmp_path / "calm"), before)
            n_commits += len(before)
            before = {}
            shutil.rmtree(out)
    assert make_run(folder, out, *options).execute().is_complete
    check_whole(out, contents(tmp_path / "calm"), before)
    n_commits += len(committed_bytes(out))
    return (
        f"{kills['worker']} workers and {kills['driver']} drivers killed in "
        f"{time.monotonic() - started:.0f} s over {n_images} images, "
        f"{n_commits} shards committed: all rows there once, all equal"
    )


def count_events(out, name):
    path = Path(out) / "events.jsonl"
    return path.read_text().count(f'"event": "{name}"') if path.exists() else 0


def kill(process):
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
