"""An export that was interrupted goes on, and one that is done stays as it is."""

import signal
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import amg
from amg.errors import OutputError, ShardError, StorageError
from amg.runs.results import open_run
from amg.storage.stores import open_storage
from benchmarks.synthetic_run import commit_rows, write_run
from tests.exports.pictures import blob, contents, make_mask, make_row, make_run, rows
from tests.pipelines.forks import ForkedDriver
from tests.pipelines.helpers import wait_until

FORMATS = ["coco", "sa1b", "yolo", "label-map", "panoptic", "png", "label-studio", "cvat"]
OPTIONS = {"coco": {"images_per_file": 6}}
SMALL = [make_mask(blob(i), 0.6) for i in range(2)]


def _many(n):
    return [make_row(f"{i // 10}/{i:04d}.jpg", SMALL) for i in range(n)]


def _export_apart(run, to, out, **environment):
    """The same in a process of its own, that may be killed."""
    return ForkedDriver(run, out, to, run=_export, **environment)


def _export(run, out, to):
    amg.export(run, to, out, **OPTIONS.get(to, {}))


def _changes(folder):
    return {
        path: path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and path.name != "lock"
    }


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    """Sixty images in eight shards."""
    return make_run(tmp_path_factory.mktemp("long") / "run", _many(60), images_per_shard=8)


@pytest.mark.parametrize("to", ["coco", "panoptic", "png"])
@pytest.mark.parametrize("point", ["half_written", "synced", "part_done"])
def test_what_was_killed_goes_on_and_ends_the_same(forks, long_run, tmp_path, to, point):
    whole, out = tmp_path / "whole", tmp_path / "out"
    for marker in ("first", "second"):
        fail = f"export.{point}=kill:{tmp_path / marker}"
        driver = _export_apart(long_run, to, out, AMG_FAILPOINT=fail)
        assert driver.wait() == -signal.SIGKILL, driver.said()
    _export(long_run, out, to)
    _export(long_run, whole, to)
    assert contents(out) == contents(whole)
    finished = ".amg-export/finished.json"
    assert (out / finished).read_bytes() == (whole / finished).read_bytes()
    assert not list(out.rglob("*.partial"))


def test_killed_at_any_moment_no_file_is_half_there(forks, long_run, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    amg.export(long_run, "png", whole)
    expected = contents(whole)
    for n_files in (1, 33, 77):
        driver = _export_apart(long_run, "png", out)
        wait_until(lambda: _n_files(out) >= n_files or driver.poll() is not None)  # noqa: B023
        driver.kill()
        driver.wait()
        assert contents(out).items() <= expected.items()
    amg.export(long_run, "png", out)
    assert contents(out) == expected


def _n_files(folder):
    return sum(1 for _ in folder.rglob("*.png"))


def test_parts_that_are_done_are_not_done_again(long_run, tmp_path):
    def stop(done, total):
        if done > 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        amg.export(long_run, "sa1b", tmp_path / "out", progress=stop)
    done = _changes(tmp_path / "out")
    assert 16 <= sum(path.suffix == ".json" for path in done) <= 30
    seen = []
    report = amg.export(
        long_run, "sa1b", tmp_path / "out", progress=lambda done, total: seen.append((done, total))
    )
    assert report.images == 60
    assert seen[-1] == (60, 60)
    after = _changes(tmp_path / "out")
    first = tmp_path / "out" / "0" / "0000.json"
    assert after[first] == done[first]


@pytest.mark.parametrize("to", FORMATS)
def test_a_finished_export_stays_as_it_is(run, tmp_path, to):
    first = amg.export(run, to, tmp_path)
    changes = _changes(tmp_path)
    assert amg.export(run, to, tmp_path) == first
    assert _changes(tmp_path) == changes
    left = sorted(path.name for path in (tmp_path / ".amg-export").iterdir())
    assert left == ["export.json", "finished.json", "lock"]


@pytest.mark.parametrize("to", FORMATS)
def test_a_run_that_grows_is_exported_as_if_it_had_been_whole(tmp_path, to):
    some = rows()
    plan = write_run(tmp_path / "run", some, len(some), 2, missing_shards=frozenset({0}))
    report = amg.export(tmp_path / "run", to, tmp_path / "out")
    assert report.images == 3
    commit_rows(open_storage(tmp_path / "run"), plan, 0, some[:2])
    report = amg.export(tmp_path / "run", to, tmp_path / "out")
    assert (report.images, report.failed) == (4, {"decode_error": 1})
    amg.export(tmp_path / "run", to, tmp_path / "at once")
    assert contents(tmp_path / "out") == contents(tmp_path / "at once")


def test_rows_that_were_done_again_are_exported_again(tmp_path):
    some = rows()
    plan = write_run(tmp_path / "run", some, len(some), 2)
    assert amg.export(tmp_path / "run", "coco", tmp_path / "out").failed == {"decode_error": 1}
    mended = [some[0], make_row("broken.jpg", SMALL)]
    commit_rows(open_storage(tmp_path / "run"), plan, 0, mended, attempt="11111111")
    report = amg.export(tmp_path / "run", "coco", tmp_path / "out")
    assert (report.images, report.failed) == (5, {})


@pytest.mark.parametrize("options", [{}, {"images_per_file": 2}])
def test_documents_that_were_deleted_are_made_again(run, tmp_path, options):
    first = amg.export(run, "coco", tmp_path, **options)
    expected = contents(tmp_path)
    for name in expected:
        (tmp_path / name).unlink()
        assert amg.export(run, "coco", tmp_path, **options) == first
        assert contents(tmp_path) == expected


def test_a_part_whose_document_was_deleted_is_done_again(tmp_path):
    write_run(tmp_path / "run", rows(), len(rows()), 2, missing_shards=frozenset({0}))
    amg.export(tmp_path / "run", "coco", tmp_path / "out", images_per_file=2)
    expected = contents(tmp_path / "out")
    (tmp_path / "out" / "instances-00001.json").unlink()
    amg.export(tmp_path / "run", "coco", tmp_path / "out", images_per_file=2)
    assert contents(tmp_path / "out") == expected


@pytest.mark.parametrize("n_deleted", range(1, 9))
def test_stopped_while_it_tidies_up_it_takes_a_changed_run(tmp_path, monkeypatch, n_deleted):
    some, n_left, unlink, glob = rows(), n_deleted, Path.unlink, Path.glob

    def stop(path, missing_ok=False):
        nonlocal n_left
        unlink(path, missing_ok)
        n_left -= path.parent.name == ".amg-export" and path.suffix != ".partial"
        if not n_left:
            raise KeyboardInterrupt

    plan = write_run(tmp_path / "run", some, len(some), 2)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "unlink", stop)
        # Folders list their files in any order: here in the worst.
        patched.setattr(Path, "glob", lambda *asked: sorted(glob(*asked)))
        amg.export(tmp_path / "run", "coco", tmp_path / "out")
    mended = [replace(some[4], masks=some[4].masks[:1])]
    commit_rows(open_storage(tmp_path / "run"), plan, 2, mended, attempt="11111111")
    amg.export(tmp_path / "run", "coco", tmp_path / "out")
    amg.export(tmp_path / "run", "coco", tmp_path / "at once")
    assert contents(tmp_path / "out") == contents(tmp_path / "at once")


def test_a_folder_takes_one_export_only(run, tmp_path):
    amg.export(run, "coco", tmp_path / "out")
    with pytest.raises(OutputError, match=r"out: holds another export \(format: 'Coco'"):
        amg.export(run, "sa1b", tmp_path / "out")
    with pytest.raises(OutputError, match=r"another export \(selection: "):
        amg.export(run, "coco", tmp_path / "out", min_area=10)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="other: not empty, and not the beginning of an export"):
        amg.export(run, "coco", tmp_path / "other")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.txt"]


def test_two_at_once_are_refused(run, tmp_path):
    def again(done, total):
        with pytest.raises(OutputError, match="another process exports to it"):
            amg.export(run, "coco", tmp_path / "out")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        amg.export(run, "coco", tmp_path / "out", progress=again)


def test_a_damaged_note_is_named(run, tmp_path):
    amg.export(run, "coco", tmp_path)
    (tmp_path / ".amg-export" / "export.json").write_text("{")
    with pytest.raises(OutputError, match=r"export\.json: damaged: .* delete the folder"):
        amg.export(run, "coco", tmp_path)


def test_a_full_disk_and_a_damaged_run_are_errors(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run")
    monkeypatch.setenv("AMG_FAILPOINT", f"export.half_written=full:{tmp_path / 'once'}")
    with pytest.raises(StorageError, match="cannot write"):
        amg.export(run, "sa1b", tmp_path / "out")
    monkeypatch.delenv("AMG_FAILPOINT")
    assert amg.export(run, "sa1b", tmp_path / "out").images == 4
    shard = run / open_run(run).commits[1].file
    shard.write_bytes(shard.read_bytes()[:200])
    with pytest.raises(ShardError, match=str(shard.name)):
        amg.export(run, "sa1b", tmp_path / "again")


@pytest.fixture(scope="module")
def sized_runs(tmp_path_factory):
    """Runs by their number of images, which are all alike."""
    squares = 4 * [make_mask(np.pad(np.ones((20, 30), bool), 10))]
    folder = tmp_path_factory.mktemp("sized")

    def make(n):
        many = [make_row(f"{i:04d}.jpg", squares, size_hw=(40, 50)) for i in range(n)]
        return make_run(folder / str(n), many, images_per_shard=20)

    return {n: make(n) for n in (20, 40, 400)}


@pytest.mark.parametrize("to", ["coco", "yolo", "png", "panoptic", "label-studio", "cvat"])
def test_memory_does_not_grow_with_the_run(sized_runs, tmp_path, to):
    def peak(n):
        tracemalloc.start()
        amg.export(sized_runs[n], to, tmp_path / f"out {n}")
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(20)  # what is imported and cached once
    few, many = peak(40), peak(400)
    # When garbage is collected moves it by a tenth of a megabyte; 360 images more, kept, are one.
    assert many < few + 300_000, "ten times the images"
