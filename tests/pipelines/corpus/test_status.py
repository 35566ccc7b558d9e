"""How a run stands, by its commits, its log and its leases."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from amg.runs.folder import EVENTS, commit_file
from amg.storage.stores import open_storage
from pipelines.corpus.holders import Holder, find_holders
from pipelines.corpus.lease import hold_lease, hold_planning_lease
from pipelines.corpus.status import look_at
from tests.pipelines.helpers import make_folder

pytestmark = pytest.mark.usefixtures("forked_workers")
N_IMAGES = 20  # in three shards


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("photos"), N_IMAGES)


@pytest.fixture
def begun(out):
    """A run of which the first shard is done, without a log."""
    for name in ("_SUCCESS", EVENTS, commit_file(1), commit_file(2)):
        (out / name).unlink()
    return out


def _log(out, session, *events):
    """Events of a session, each with its age in seconds."""
    now = time.time()
    with (Path(out) / EVENTS).open("a") as file:
        for age_s, event, values in events:
            common = {"time": now - age_s, "session": session, "event": event}
            file.write(json.dumps({**common, **values}) + "\n")


def _started(age_s, shards):
    return age_s, "started", {"shards": shards}


def _committed(age_s, shard):
    return age_s, "committed", {"shard": shard, "images": 8}


def _ended(age_s, stopped=None, **failed):
    reasons = {number.removeprefix("shard"): reason for number, reason in failed.items()}
    return age_s, "ended", {"stopped": stopped, "failed": reasons}


def test_holders_are_found_and_left_alone(storage):
    assert find_holders(storage) == []
    with hold_lease(storage, (0, 2)), hold_planning_lease(storage):
        for _ in range(2):
            (found,) = find_holders(storage)
            assert (found.slice, found.pid) == ("1/2", os.getpid())
            assert 0 <= time.time() - found.since < 60
        with hold_lease(storage, (1, 2)):
            assert [holder.slice for holder in find_holders(storage)] == ["1/2", "2/2"]
    assert find_holders(storage) == []


def test_a_holder_that_nobody_can_read_is_one_all_the_same(tmp_path):
    storage = open_storage(tmp_path)
    with hold_lease(storage):
        (tmp_path / ".leases/0-of-1.lock").write_bytes(b"\xff{")
        assert find_holders(storage) == [Holder(None)]


def test_looking_needs_no_right_to_write(tmp_path, monkeypatch):
    storage = open_storage(tmp_path)
    with hold_lease(storage):
        lock = tmp_path / ".leases/0-of-1.lock"
        lock.chmod(0o444)
        assert len(find_holders(storage)) == 1
        assert {path.name for path in lock.parent.iterdir()} == {lock.name}


def test_a_finished_run_is_said_to_be_so(out):
    found = look_at(out)
    assert (found.is_finished, found.stopped, found.drivers) == (True, None, [])
    assert (found.n_committed, found.tally.images) == (3, N_IMAGES)
    assert found.images_per_s > 0
    assert found.seconds_left is None
    assert found.began <= found.last_event <= time.time()


def test_rate_and_time_left_are_those_of_the_driver_at_work(begun):
    with hold_lease(open_storage(begun)):
        _log(begun, "old", _started(90_000, 3))  # killed, long before
        assert look_at(begun).images_per_s is None
        (driver,) = find_holders(open_storage(begun))
    holder = replace(driver, since=time.time() - 101)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("pipelines.corpus.status.find_holders", lambda _: [holder])
        _log(begun, "mine", _started(100, 3))
        assert look_at(begun).seconds_left is None
        _log(begun, "mine", _committed(50, 0))
        found = look_at(begun)
        assert found.stopped is None
        assert found.images_per_s == pytest.approx(8 / 100, rel=0.2)
        assert found.seconds_left == pytest.approx(200, rel=0.2)
        other = replace(holder, slice="2/2")
        patched.setattr("pipelines.corpus.status.find_holders", lambda _: [holder, other])
        _log(begun, "theirs", _started(40, 2), _committed(0, 1))
        found = look_at(begun)
        assert found.images_per_s == pytest.approx(8 / 100 + 8 / 40, rel=0.2)
        assert found.seconds_left == pytest.approx(200, rel=0.2)


def test_why_nobody_is_at_work_is_said(begun):
    assert look_at(begun).stopped == "no driver has begun its work"
    _log(begun, "a", _started(100, 3), _committed(90, 0))
    assert "gone without a word" in look_at(begun).stopped
    _log(begun, "b", _started(80, 2), _ended(70, "SIGTERM", shard1="disk full", shard2="EIO"))
    found = look_at(begun)
    assert found.stopped == "SIGTERM"
    assert found.failed_shards == {1: "disk full", 2: "EIO"}
    assert found.images_per_s == pytest.approx(0.8)
    _log(begun, "c", _started(60, 2), _committed(55, 1), _ended(50, shard2="EIO"))
    found = look_at(begun)
    assert found.failed_shards == {2: "EIO"}
    assert found.stopped == "shards that could not be done: 1"
    _log(begun, "d", _started(40, 1), _committed(35, 2), _ended(30))
    assert "had a slice to do" in look_at(begun).stopped
