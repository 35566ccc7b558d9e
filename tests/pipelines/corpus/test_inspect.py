"""What looks after a run's folder: summaries, verify, gc and retry-failed."""

import hashlib
import json
import shutil
from contextlib import suppress
from dataclasses import replace

import pytest
import yaml

from amg.config import EngineConfig, ModelConfig, load_config
from amg.errors import AmgError, ConfigError, RunError
from amg.ops import rle
from amg.records import Rle
from amg.runs.folder import Tally, commit_file, read_commits, require_plan, to_json
from amg.runs.results import open_run
from amg.runs.shards import ShardWriter, read_shard
from amg.storage.stores import open_storage
from pipelines.corpus.gc import collect_garbage
from pipelines.corpus.lease import hold_lease
from pipelines.corpus.run import Run, retry_failed, summarize
from pipelines.corpus.settings import read_config
from pipelines.corpus.verify import verify
from tests.pipelines.helpers import contents, make_folder, make_run
from tests.pipelines.stub import make_stub, save_image

pytestmark = pytest.mark.usefixtures("forked_workers")
BAD = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twenty images in shards of eight; one of the first shard is cut short."""
    folder = make_folder(tmp_path_factory.mktemp("photos"))
    path = folder / f"{BAD:03d}.png"
    path.write_bytes(path.read_bytes()[:300])
    return folder


def _commits(out):
    storage = open_storage(out)
    return read_commits(storage, require_plan(storage))


def _problems(out, workers=1):
    return [text for verdict in verify(str(out), workers) for text in verdict.problems]


def _files(out):
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and ".leases" not in path.parts
    }


def _rewrite(out, shard, change):
    """Put other rows into a shard, and a commit that fits them."""
    commit = _commits(out)[shard]
    path = out / commit.file
    rows = change(list(read_shard(path)))
    with ShardWriter(path, {}) as writer:
        for row in rows:
            writer.write(row)
    data = path.read_bytes()
    commit = replace(commit, sha256=hashlib.sha256(data).hexdigest(), n_bytes=len(data))
    (out / commit_file(shard)).write_bytes(to_json(commit))


def _with_mask(row, **values):
    return replace(row, masks=(replace(row.masks[0], **values),))


def test_a_summary_adds_up_the_commits(out):
    report = summarize(out)
    assert (report.n_images, report.n_shards, report.n_committed) == (20, 3, 3)
    assert report.tally.statuses == {"ok": 19, "decode_error": 1}
    assert report.tally.masks == 19
    assert report.is_complete
    (out / commit_file(1)).unlink()
    report = summarize(out)
    assert (report.n_committed, report.tally.images) == (2, 12)
    assert not report.is_complete


@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_is_wrong_with_a_good_run(out, workers):
    verdicts = list(verify(str(out), workers))
    assert [(v.shard, v.n_rows, v.problems) for v in verdicts] == [
        (0, 8, ()),
        (1, 8, ()),
        (2, 4, ()),
        (None, 0, ()),
    ]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_changed_byte_is_found(out, workers):
    commit = _commits(out)[1]
    path = out / commit.file
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    problems = _problems(out, workers)
    assert f"{commit.file}: its sha256 is not that of the commit" in problems
    assert all(commit.file in problem for problem in problems)


def test_whatever_byte_is_changed_verify_says_so_and_ends(out):
    commit = _commits(out)[2]
    path = out / commit.file
    data = path.read_bytes()
    for at in range(0, len(data), len(data) // 40):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        assert _problems(out), at


def test_a_missing_shard_is_found(out):
    commit = _commits(out)[2]
    (out / commit.file).unlink()
    (problem,) = _problems(out)
    assert commit.file in problem
    assert "no such file" in problem.lower()


def test_a_shard_that_was_cut_short_is_found(out):
    path = out / _commits(out)[0].file
    path.write_bytes(path.read_bytes()[:-10])
    assert any("cannot be read" in problem for problem in _problems(out))


def test_a_missing_commit_is_found(out):
    (out / commit_file(1)).unlink()
    assert _problems(out) == ["1 of 3 shards are not committed, and _SUCCESS says that all are"]


def test_what_is_still_to_be_done_is_no_damage(out):
    (out / "_SUCCESS").unlink()
    *_, whole = verify(str(out))
    assert (whole.problems, whole.unfinished) == ((), "_SUCCESS is missing: run again to finish")
    (out / commit_file(1)).unlink()
    *_, whole = verify(str(out))
    assert (whole.problems, whole.unfinished) == ((), "1 of 3 shards are not committed")


@pytest.mark.parametrize("parent", [0, 1, -1])
def test_a_parent_that_is_no_larger_mask_is_found(out, parent):
    def change(rows):
        rows[2] = _with_mask(rows[2], parent=parent)
        return rows

    _rewrite(out, 0, change)
    assert _problems(out) == [
        f"002.png: masks[0]: its parent {parent} is no larger mask of the image"
    ]


def test_candidates_are_verified_too(out):
    def change(rows):
        wrong = replace(rows[2].masks[0], area=7)
        rows[2] = replace(rows[2], candidates=(rows[2].masks[0], wrong))
        return rows

    _rewrite(out, 0, change)
    assert _problems(out) == ["002.png: candidates[1]: area 7, its RLE has another"]


@pytest.mark.parametrize("counts", ["", "0", "PPPP", "not RLE at all", "~~~~~~~~~~~~~~", "é"])
def test_an_invalid_mask_is_found(out, counts):
    def change(rows):
        rows[2] = _with_mask(rows[2], rle=Rle(rows[2].masks[0].rle.size_hw, counts))
        return rows

    _rewrite(out, 1, change)
    (problem,) = _problems(out)
    assert problem.startswith("010.png: masks[0]: ")


def test_a_mask_of_another_size_is_found(out):
    def change(rows):
        rows[0] = replace(rows[0], height=rows[0].height - 1)
        return rows

    _rewrite(out, 1, change)
    (problem,) = _problems(out)
    assert problem.startswith("008.png: masks[0]: ")


def test_an_area_that_is_not_that_of_the_mask_is_found(out):
    def change(rows):
        return [_with_mask(rows[0], area=rows[0].masks[0].area + 1), *rows[1:]]

    _rewrite(out, 1, change)
    (problem,) = _problems(out)
    assert problem.startswith("008.png: masks[0]: area")


@pytest.mark.parametrize("change", ["renamed", "swapped"])
def test_ids_that_are_not_the_plans_are_found(out, change):
    def rename(rows):
        return [replace(rows[0], image_id="other.png"), *rows[1:]]

    def swap(rows):
        return [rows[1], rows[0], *rows[2:]]

    _rewrite(out, 1, rename if change == "renamed" else swap)
    (problem,) = _problems(out)
    assert "its image ids are not those of the plan" in problem


def test_rows_that_are_missing_are_found(out):
    _rewrite(out, 1, lambda rows: rows[:-1])
    ids, counts = _problems(out)
    assert "ids" in ids
    assert "masks and statuses" in counts


def test_counts_that_are_not_the_commits_are_found(out):
    _rewrite(out, 1, lambda rows: [replace(rows[0], masks=()), *rows[1:]])
    (problem,) = _problems(out)
    assert "its masks and statuses are not those of the commit" in problem


def test_many_problems_of_a_shard_are_summed_up(out):
    _rewrite(out, 1, lambda rows: [_with_mask(row, area=1) for row in rows])
    assert len(_problems(out)) == 6
    assert _problems(out)[-1] == "and 3 more"


@pytest.mark.parametrize("name", ["inputs.parquet", "plan.json", "commits/00001.json"])
@pytest.mark.parametrize("data", [b"", b"damaged", b"\xff\xfe[", b"[1, 2]", b"{}"])
def test_damaged_files_of_the_folder_are_our_errors_and_named(out, name, data):
    (out / name).write_bytes(data)
    try:
        text = " ".join(_problems(out))
    except AmgError as error:
        text = str(error)
    assert name in text


def test_a_commit_of_another_plan_is_named(out):
    path = out / commit_file(1)
    path.write_text(path.read_text().replace(require_plan(open_storage(out)).fingerprint, "ab"))
    with pytest.raises(RunError, match=r"commits/00001\.json belongs to another plan"):
        _problems(out)


@pytest.mark.parametrize("look", [summarize, lambda out: list(verify(out)), collect_garbage])
def test_a_folder_without_a_run_is_named_and_left_alone(tmp_path, look):
    (tmp_path / "a.txt").write_text("mine")
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(RunError, match=f"{folder} holds no run"):
            look(str(folder))
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def _litter(out):
    """What killed and superseded attempts leave."""
    litter = {
        "data/part-00001.deadbeef.parquet": b"whole but not committed",
        "data/.part-00002.dead.parquet.12345678.partial": b"half",
        "commits/.00002.json.12345678.partial": b"{",
        "attempts/.00002.dead.json.12345678.partial": b"",
        ".plan.json.12345678.partial": b"{}",
        "failures/00002.deadbeef.txt": b"Traceback",
        "failures/start.deadbeef.txt": b"Traceback",
    }
    for folder in ("attempts", "failures"):
        (out / folder).mkdir(exist_ok=True)
    for name, data in litter.items():
        (out / name).write_bytes(data)
    return litter


def test_garbage_is_deleted_and_nothing_else(out):
    before = _files(out)
    litter = _litter(out)
    (out / "attempts" / "00001.dead.json").write_text("{}")
    found = collect_garbage(str(out))
    assert found == {name: len(data) for name, data in litter.items()}
    assert _files(out) == before
    assert collect_garbage(str(out)) == {}
    assert _problems(out) == []


def test_what_is_not_committed_any_more_is_garbage_and_done_again(out, folder):
    expected = contents(out)
    file = _commits(out)[1].file
    (out / commit_file(1)).unlink()
    assert list(collect_garbage(str(out))) == [file]
    make_run(folder, out).execute()
    assert contents(out) == expected
    assert _problems(out) == []


def test_a_dry_run_deletes_nothing(out):
    litter = _litter(out)
    before = _files(out)
    assert set(collect_garbage(str(out), dry_run=True)) == set(litter)
    assert _files(out) == before


@pytest.mark.parametrize("slice_", [(0, 1), (1, 4)])
def test_garbage_is_left_while_a_run_is_at_work(out, slice_):
    _litter(out)
    before = _files(out)
    with hold_lease(open_storage(out), slice_), pytest.raises(RunError, match="is in use"):
        collect_garbage(str(out))
    assert _files(out) == before


def test_what_failed_is_done_again_and_nothing_else(tmp_path, folder, finished):
    mended = shutil.copytree(folder, tmp_path / "photos")
    for i in (BAD, 17):
        (mended / f"{i:03d}.png").write_bytes(b"")
    out = tmp_path / "out"
    make_run(mended, out).execute()
    assert summarize(out).tally.failed == 2
    before, files = contents(out), _files(out)
    superseded = [_commits(out)[shard].file for shard in (0, 2)]
    save_image(mended / f"{BAD:03d}.png", BAD)
    save_image(mended / "017.png", 17)

    report = retry_failed(out, make_generator=make_stub)

    assert report.is_complete
    assert report.tally.statuses == {"ok": 20}
    after = contents(out)
    assert [row for i, row in enumerate(after) if i not in (BAD, 17)] == [
        row for i, row in enumerate(before) if i not in (BAD, 17)
    ]
    assert [row[:2] for row in after] == [(f"{i:03d}.png", "ok") for i in range(20)]
    assert _problems(out) == []
    now = _files(out)
    untouched = {n for n in files if n.startswith(("data/", "commits/", "inputs", "plan", "conf"))}
    untouched -= {commit_file(0), commit_file(2)}
    assert {n for n in untouched if now[n] != files[n]} == set()
    assert not any(name.startswith("attempts/") for name in now)

    assert sorted(collect_garbage(str(out))) == sorted(superseded)
    assert contents(out) == after
    assert _problems(out) == []


@pytest.fixture
def broken(out):
    """The finished run, with one more failed row in each shard: of no image's fault."""
    for shard in range(3):
        _rewrite(out, shard, lambda rows: [replace(rows[0], status="oom", masks=()), *rows[1:]])
        commit = _commits(out)[shard]
        tally = sum(map(Tally.of, read_shard(out / commit.file)), Tally())
        (out / commit_file(shard)).write_bytes(to_json(replace(commit, tally=tally)))
    assert _problems(out) == []
    return out


def test_only_rows_of_the_chosen_statuses_are_done_again(broken):
    report = retry_failed(broken, statuses=["oom"], make_generator=make_stub)
    assert report.tally.statuses == {"ok": 19, "decode_error": 1}
    assert report.session_images == 3
    assert _problems(broken) == []
    before = _files(broken)
    report = retry_failed(broken, statuses=["oom", "crashed"], make_generator=None)
    assert report.session_images == 0
    data = {name for name in before if name.startswith(("data/", "commits/"))}
    assert {name: _files(broken)[name] for name in data} == {name: before[name] for name in data}


def test_a_slice_does_only_its_failed_rows_again(broken):
    with hold_lease(open_storage(broken), (1, 2)):
        report = retry_failed(broken, slice_=(0, 2), make_generator=make_stub)
    assert report.tally.statuses == {"ok": 18, "oom": 1, "decode_error": 1}
    report = retry_failed(broken, slice_=(1, 2), make_generator=make_stub)
    assert report.tally.statuses == {"ok": 19, "decode_error": 1}
    assert _problems(broken) == []


@pytest.mark.parametrize("status", ["ok", "lost"])
def test_a_status_that_no_failed_row_has_is_refused_by_name(out, status):
    with pytest.raises(ConfigError, match=f"status '{status}': rows fail as one of crashed, "):
        retry_failed(out, statuses=["oom", status], make_generator=make_stub)


def test_what_fails_again_keeps_its_row_with_the_reason(out):
    before = contents(out)
    report = retry_failed(out, make_generator=make_stub)
    assert report.is_complete
    assert report.tally.failed == 1
    assert contents(out) == before
    assert _problems(out) == []


def test_nothing_is_started_where_nothing_failed(out):
    def change(rows):
        return [replace(row, status="empty") if row.status != "ok" else row for row in rows]

    _rewrite(out, 0, change)
    commit = _commits(out)[0]
    tally = replace(commit.tally, statuses={"ok": 7, "empty": 1})
    (out / commit_file(0)).write_bytes(to_json(replace(commit, tally=tally)))
    before = {n: d for n, d in _files(out).items() if n.startswith(("data/", "commits/"))}
    report = retry_failed(out, make_generator=None)
    assert report.is_complete
    now = _files(out)
    assert before == {n: d for n, d in now.items() if n.startswith(("data/", "commits/"))}


def test_marks_of_attempts_that_were_not_cleared_away_spoil_no_good_row(out):
    """Two drivers were killed with a good image alone in flight, the second after its commit."""
    (out / "attempts").mkdir(exist_ok=True)
    for attempt in ("aaaa", "bbbb"):
        mark = {"attempt": attempt, "in_flight": [5]}
        (out / "attempts" / f"00000.{attempt}.json").write_text(json.dumps(mark))
    before = contents(out)
    report = retry_failed(out, make_generator=make_stub)
    assert report.failed_shards == {}
    assert contents(out) == before


def test_a_changed_configuration_makes_no_rows_under_the_old_plan(out):
    path = out / "config.yaml"
    path.write_text(path.read_text().replace("points_per_side: ", "points_per_side: 1"))
    with pytest.raises(RunError, match="points_per_side"):
        retry_failed(out, make_generator=make_stub)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "- a",
        "model: 3",
        "model: {name: nemo, colour: 3}",
    ],
)
def test_a_damaged_configuration_is_our_error(out, text):
    (out / "config.yaml").write_text(text)
    with pytest.raises(AmgError):
        retry_failed(out, make_generator=make_stub)


def test_an_error_in_the_middle_of_reading_is_a_problem_of_the_shard(out, monkeypatch):
    def fail(_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("pipelines.corpus.verify._sha256", fail)
    assert len(_problems(out)) == 3
    assert all("Input/output error" in problem for problem in _problems(out))


def test_beginning_anew_deletes_nothing_that_no_run_wrote(tmp_path, folder):
    out = tmp_path / "project"
    mine = {
        "data/table.csv": b"1",
        "config.yaml": b"a: 1",
        "events/party.txt": b"x",
        "failures/mine.txt": b"y",
    }
    for name, data in mine.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(data)
    with suppress(AmgError):
        make_run(folder, out, overwrite=True, limit=1).execute()
    assert {name: (out / name).read_bytes() for name in mine if (out / name).exists()} == mine


def test_what_cannot_be_planned_takes_the_place_of_nothing(out, folder):
    """An id that is there twice is found when all are listed; until then no file is touched."""
    before = contents(out)
    again = Run([folder, folder], out, make_generator=make_stub, overwrite=True)
    with pytest.raises(ConfigError, match="occur more than once"):
        again.execute()
    assert contents(out) == before


def test_a_slice_does_not_delete_the_work_of_the_others(out, folder):
    with hold_lease(open_storage(out), (1, 2)), pytest.raises(AmgError):
        make_run(folder, out, overwrite=True, slice_=(0, 2)).execute()
    assert (out / commit_file(1)).exists()


def test_an_unfinished_run_is_taken_up_after_what_failed_is_mended(tmp_path, folder):
    mended = shutil.copytree(folder, tmp_path / "photos")
    out = tmp_path / "out"
    make_run(mended, out, slice_=(0, 2)).execute()
    save_image(mended / f"{BAD:03d}.png", BAD)
    report = retry_failed(out, make_generator=make_stub)
    assert not report.is_complete
    assert report.tally.statuses == {"ok": 12}
    assert not (out / "_SUCCESS").exists()
    assert make_run(mended, out).execute().is_complete
    assert contents(out) == _all_ok(mended, tmp_path / "other")


def _all_ok(folder, out):
    make_run(folder, out).execute()
    rows = contents(out)
    assert all(row[1] == "ok" for row in rows)
    return rows


def test_masks_decode_to_what_the_stub_saw(finished, folder):
    import numpy as np
    from PIL import Image

    row = next(open_run(finished).rows())
    grey = np.asarray(Image.open(folder / row.image_id)).mean(axis=2)
    assert (rle.decode(row.masks[0].rle) == (grey > grey.mean())).all()


def test_the_configuration_is_that_of_the_run(finished):
    written = load_config(finished / "config.yaml")
    assert written.run.images_per_shard == 8
    assert written.model.device is None
    text = (finished / "config.yaml").read_text()
    assert not any(word in text for word in ("engine", "device", "memory_budget", "drain_s"))


def test_what_an_older_folder_keeps_of_a_call_is_left_out(out):
    tree = yaml.safe_load((out / "config.yaml").read_text())
    tree["model"] |= {"device": "cpu", "compile": True}
    tree["engine"] = {"name": "ray", "max_workers": 64}
    tree["generator"]["memory_budget"] = 1000
    tree["run"] |= {"decode_threads": 64, "stall_timeout_s": 7.0}
    (out / "config.yaml").write_text(yaml.safe_dump(tree))
    config = read_config(open_storage(out))
    assert (config.model, config.engine) == (ModelConfig(name="nano"), EngineConfig())
    assert config.generator.memory_budget is None
    assert (config.run.decode_threads, config.run.stall_timeout_s) == (4, 7.0)
