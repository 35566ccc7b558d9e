"""Commits through times in which OUT fails: they wait, in order, for minutes and not for ever."""

import uuid
from types import SimpleNamespace

import pytest

from amg.errors import InterruptedRunError, StorageError
from amg.runs.events import EventLog, read_events
from amg.runs.folder import Tally, commit_file, read_commits, shard_file
from amg.storage.stores import open_storage
from pipelines.corpus import patience as patience_module
from pipelines.corpus.messages import ShardResult
from pipelines.corpus.outbox import Outbox
from pipelines.corpus.patience import Patience
from tests.pipelines.helpers import write_plan


class Clock:
    def __init__(self):
        self.now_s = 1000.0

    def monotonic(self):
        return self.now_s


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(patience_module, "time", clock)
    return clock


class HeldLease:
    is_held = True
    is_taken = False

    def check(self):
        if self.is_taken:
            raise InterruptedRunError("taken over")


@pytest.fixture
def out():
    """A run's storage that may be told to fail, and an outbox for it."""
    storage = open_storage(f"memory://{uuid.uuid4().hex}/out")
    plan = write_plan(storage.address, n_images=30, images_per_shard=10)
    lease = HeldLease()
    return SimpleNamespace(
        storage=storage,
        plan=plan,
        lease=lease,
        box=Outbox(storage, lease, plan, EventLog(storage)),
        fail=lambda patch, name, error: patch.setattr(storage, name, _raise(error)),
        committed=lambda: list(read_commits(storage, plan)),
    )


def _raise(error):
    def fail(*_):
        raise error

    return fail


def _published(storage, shard, attempt="abcdef01", n_bytes=5):
    name = shard_file(shard, attempt)
    storage.write(name, b"12345")
    return ShardResult(shard, attempt, name, n_bytes, "0" * 64, Tally(10), 1.0)


def test_a_storage_that_is_silent_does_not_fail(clock):
    patience = Patience(limit_s=60)
    patience.failed(StorageError("busy"))
    assert patience.is_tried
    clock.now_s += 59
    patience.worked()
    clock.now_s += 10_000
    patience.failed(StorageError("busy"))
    clock.now_s += 59
    patience.failed(StorageError("busy"))
    clock.now_s += 2
    with pytest.raises(StorageError, match="for 60 s and more: busy"):
        patience.failed(StorageError("busy"))


def test_what_fails_is_looked_at_less_and_less(clock):
    patience = Patience(limit_s=1000)
    waits_s = []
    for _ in range(8):
        patience.failed(StorageError("busy"))
        before = clock.now_s
        while not patience.is_due:
            clock.now_s += 0.1
        waits_s.append(clock.now_s - before)
    assert waits_s[0] < 2.2 < 9.9 < waits_s[-1] < 20.2
    patience.worked()
    assert patience.is_due and not patience.is_tried


def test_commits_wait_while_out_fails(out, clock, monkeypatch):
    for shard in (2, 0):
        out.box.put(7, _published(out.storage, shard))
    with monkeypatch.context() as patch:
        out.fail(patch, "create", StorageError("busy"))
        assert out.box.commit() == []
        assert not out.box.is_open and not out.box.is_empty
        clock.now_s += 250
        assert out.box.commit() == []
    assert out.box.commit() == [], "it is looked at now and then"
    clock.now_s += 20
    assert [(c.worker, c.result.shard, c.outcome.shard) for c in out.box.commit()] == [
        (7, 2, 2),
        (7, 0, 0),
    ]
    assert out.box.is_open and out.box.is_empty
    assert out.committed() == [0, 2]


def test_out_that_fails_for_too_long_or_for_good_ends_the_run(out, clock, monkeypatch):
    out.box.put(0, _published(out.storage, 0))
    out.fail(monkeypatch, "create", StorageError("busy"))
    out.box.commit()
    clock.now_s += 301
    with pytest.raises(StorageError, match="for 300 s and more: busy"):
        out.box.commit()
    out.fail(monkeypatch, "create", StorageError("denied", passing=False))
    clock.now_s += 100
    with pytest.raises(StorageError, match="denied"):
        out.box.commit()
    assert out.committed() == []


def test_nothing_is_committed_while_the_lease_cannot_be_renewed(out, clock):
    out.box.put(0, _published(out.storage, 0))
    out.lease.is_held = False
    assert out.box.commit() == []
    assert out.committed() == []
    out.lease.is_held = True
    clock.now_s += 20
    assert len(out.box.commit()) == 1
    out.lease.is_taken = True
    with pytest.raises(InterruptedRunError, match="taken over"):
        out.box.commit()


def test_inputs_that_cannot_be_read_for_too_long_end_the_run(out, clock):
    """Though OUT can be written to all the time."""
    unread = _raise(StorageError("no such rows"))
    assert not out.box.try_reading(unread)
    assert not out.box.is_open
    clock.now_s += 20
    assert out.box.commit() == [] and out.box.is_open
    clock.now_s += 290
    with pytest.raises(StorageError, match="for 300 s and more: no such rows"):
        out.box.try_reading(unread)


def test_the_first_of_two_commits_stands(out):
    """Two drivers have done a shard, since their leases did not exclude each other."""
    first, second = (_published(out.storage, 1, attempt) for attempt in ("aaaaaaaa", "bbbbbbbb"))
    out.box.put(0, first)
    out.box.commit()
    out.box.put(0, second)
    (committed,) = out.box.commit()
    assert committed.outcome.attempt == "aaaaaaaa"
    assert read_commits(out.storage, out.plan)[1].file == first.file
    again = Outbox(out.storage, out.lease, out.plan, EventLog(out.storage), replaced={1})
    again.put(0, second)
    again.commit()
    assert read_commits(out.storage, out.plan)[1].file == second.file


def test_a_shard_that_is_not_there_as_it_was_sent_is_not_committed(out):
    out.box.put(0, _published(out.storage, 0, n_bytes=6))
    (committed,) = out.box.commit()
    assert "6 bytes sent, found 5" in str(committed.outcome)
    assert out.storage.read(commit_file(0)) is None
    assert out.box.is_open


def test_a_log_that_cannot_be_written_waits(out, monkeypatch):
    log = EventLog(out.storage)
    monkeypatch.setattr(EventLog, "_FLUSH_S", -1.0)
    log._flush_at = 0.0
    with monkeypatch.context() as patch:
        out.fail(patch, "write", StorageError("busy"))
        log.log("first")
        log.log("second")
        with pytest.raises(StorageError):
            log.flush()
    log.log("third")
    assert [event["event"] for event in read_events(out.storage)] == ["first", "second", "third"]


def test_files_that_cannot_be_deleted_stay(out, monkeypatch):
    out.fail(monkeypatch, "delete", StorageError("busy"))
    out.box.delete(["attempts/00000.abcdef01.json"])
