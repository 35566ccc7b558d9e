"""Starts of workers that fail: where they are tried again, and when a run ends for want of them."""

import logging
from types import SimpleNamespace

import pytest

from amg import StorageError
from amg.config import Config, EngineConfig
from amg.errors import BlockedRunError, CheckpointError, ShardError
from amg.runs.folder import FAILURES, Commit, Plan, Tally
from amg.storage.patient import open_patiently
from pipelines.corpus import driver, outbox, staffing
from pipelines.corpus.driver import Driver
from pipelines.corpus.engines.forwarding import ForwardWarnings
from pipelines.corpus.messages import (
    Died,
    Failed,
    Finished,
    Node,
    Placed,
    Ready,
    ShardResult,
    WorkerSetup,
)
from pipelines.corpus.staffing import Staffing
from pipelines.corpus.witness import InputsGoneError

GOOD, BAD, OTHER = Node("a" * 40, "good"), Node("b" * 40, "bad"), Node("c" * 40, "other")
OUT_OF_MEMORY = "OutOfMemoryError: no room"


def fail(staff, node, n, now=0.0, **how):
    """So many failed starts, each begun when the last has failed."""
    for _ in range(n):
        now += 1.0
        staff.fail(node, OUT_OF_MEMORY, now - 0.5, now, **how)
    return now


def test_a_node_rests_longer_after_each_failure_and_is_then_left_out():
    staff = Staffing(EngineConfig(), jitter=lambda: 1.0)
    now = fail(staff, BAD, 1)
    assert staff.avoided(now + 4.9) == {BAD}
    assert staff.avoided(now + 5.1) == frozenset()
    now = fail(staff, BAD, 1, now + 6)
    assert staff.avoided(now + 9.9) == {BAD}
    assert staff.avoided(now + 10.1) == frozenset()
    now = fail(staff, BAD, 1, now + 11)
    assert staff.avoided(now + 1e6) == {BAD}


def test_rests_are_drawn_at_random_and_end_within_a_minute():
    staff = Staffing(EngineConfig(), jitter=lambda: 0.1)
    now = fail(staff, None, 20)
    assert staff.must_wait(now + 5.9)
    assert not staff.must_wait(now + 6.1)
    assert not Staffing(EngineConfig()).must_wait(0.0)


def test_a_success_forgets_failures_and_failures_at_once_are_one():
    staff = Staffing(EngineConfig())
    now = fail(staff, BAD, 2)
    staff.succeed(BAD)
    assert staff.avoided(now) == frozenset()
    for _ in range(8):  # begun together, as on a node with eight GPUs
        assert not staff.fail(BAD, OUT_OF_MEMORY, started_at=now, now=now + 1)
    assert staff.avoided(now + 100) == frozenset()


def test_a_run_ends_when_all_nodes_are_left_out_and_names_them():
    staff = Staffing(EngineConfig())
    now = fail(staff, BAD, 3)
    staff.check_places(lambda: {BAD, GOOD}, now)
    staff.check_places(set, now)  # a cluster that begins without nodes for workers
    with pytest.raises(BlockedRunError, match=r"bad \(bbbb.*3 starts .*no room"):
        staff.check_places(lambda: {BAD}, now)


def test_what_may_pass_is_waited_for_until_time_is_up():
    staff = Staffing(EngineConfig(start_timeout_s=600), jitter=lambda: 1.0)
    now = fail(staff, BAD, 3, passing=True)
    staff.check_places(lambda: {BAD}, now)
    assert staff.avoided(now + 59) == {BAD}
    assert staff.avoided(now + 61) == frozenset()
    staff.check_strength(0, 1, now)
    staff.check_strength(0, 1, now + 599)
    with pytest.raises(BlockedRunError, match=r"0 of 1 workers .*bad .*no room"):
        staff.check_strength(0, 1, now + 601)


class FakeEngine:
    """Nodes of which some fail: each has room for one worker, which does a shard at a time."""

    def __init__(self, broken, healthy=(), max_workers=2):
        self.broken, self.healthy, self.max_workers = dict(broken), set(healthy), max_workers
        self.homes, self.events, self.starts = {}, [], []

    def nodes(self):
        return {*self.broken, *self.healthy}

    def start(self, avoid):
        free = sorted(self.nodes() - avoid - set(self.homes.values()), key=lambda n: n.id)
        if not free:
            return None
        # The broken one is free at once after each failure, so that it comes first.
        home = next((n for n in free if n in self.broken), free[0])
        worker = len(self.starts)
        self.starts.append(home)
        self.homes[worker] = home
        self.events.append(Placed(worker, home))
        self.events.append(self.broken[home](worker) if home in self.broken else Ready(worker))
        return worker

    def submit(self, worker, task):
        result = ShardResult(task.shard, task.attempt, "file", 0, "", Tally(), 0.0)
        self.events.append(Finished(worker, result))

    def wait(self, timeout_s):
        events, self.events = self.events, []
        for event in events:
            if isinstance(event, Died):
                self.homes.pop(event.worker, None)
        return events

    def kill(self, worker):
        self.homes.pop(worker, None)

    def close(self):
        self.homes.clear()


def refuse(worker):
    return Failed(worker, None, CheckpointError("no such file here"), "Traceback: of a refusal")


def die(worker):
    return Died(worker, OUT_OF_MEMORY, traceback="Traceback: of a death")


def _commit(storage, plan, result, *, replaces):
    return Commit(result.shard, result.file, 0, "", Tally(), result.attempt, plan.fingerprint)


@pytest.fixture
def run_with(tmp_path, monkeypatch):
    """Run a driver of some shards with an engine: the reasons of its events and its folder."""
    monkeypatch.setattr(staffing, "_FIRST_REST_S", 0.001)
    monkeypatch.setattr(outbox, "commit_shard", _commit)
    monkeypatch.setattr(
        driver, "PlannedInputs", lambda _: SimpleNamespace(read=lambda _: [], close=lambda: None)
    )
    (tmp_path / "out").mkdir()
    storage = open_patiently(tmp_path / "out")

    def run(engine, n_shards=20):
        plan = Plan("run", "f" * 64, {}, n_shards, 0, 1)
        setup = WorkerSetup(storage.address, Config(), lambda *_: None, plan.fingerprint, None)
        lease = SimpleNamespace(check=lambda: None, is_held=True)
        work = Driver(storage, lease, plan, setup, {}, list(range(n_shards)))
        work.run(engine, lambda _: None)
        assert work.schedule.is_finished
        assert work.schedule.failed == {}

    run.out = tmp_path / "out"
    return run


@pytest.mark.parametrize("how", [refuse, die])
def test_one_bad_node_is_left_out_also_before_any_worker_is_ready(run_with, how):
    engine = FakeEngine({BAD: how}, [GOOD])
    run_with(engine)
    assert engine.starts.count(BAD) <= 3
    events = (run_with.out / "events.jsonl").read_text()
    assert '"node": "bad (bbbbbbbbbbbb)"' in events
    kept = list((run_with.out / FAILURES).iterdir())
    assert kept[0].read_text().startswith("Traceback: of a")


def test_a_cluster_of_bad_nodes_ends_the_run_and_says_why(run_with):
    engine = FakeEngine({BAD: die, OTHER: refuse})
    with pytest.raises(BlockedRunError) as ended:
        run_with(engine)
    assert "bad (bbbbbbbbbbbb): 3 starts" in str(ended.value)
    assert "no such file here" in str(ended.value)
    assert (engine.starts.count(BAD), engine.starts.count(OTHER)) == (3, 3)


def test_on_one_machine_what_people_must_mend_ends_the_run_at_once(run_with):
    engine = FakeEngine({BAD: refuse}, max_workers=1)
    with pytest.raises(CheckpointError, match="no such file here"):
        run_with(engine)
    assert len(engine.starts) == 1


def test_on_one_machine_other_failures_are_tried_again(run_with):
    engine = FakeEngine({BAD: None}, max_workers=1)

    def once(worker):
        engine.broken.clear()
        engine.healthy.add(BAD)
        return Failed(worker, None, StorageError("a file server sleeps"))

    engine.broken[BAD] = once
    run_with(engine)
    assert len(engine.starts) == 2


def test_the_traceback_of_a_shard_that_could_not_be_done_is_kept(run_with):
    class FailingEngine(FakeEngine):
        has_failed = False

        def submit(self, worker, task):
            if self.has_failed:
                super().submit(worker, task)
                return
            self.has_failed = True
            error = ShardError("a file that is not what was written")
            self.events.append(Failed(worker, task.attempt, error, "Traceback: of a shard"))

    run_with(FailingEngine({}, [GOOD], max_workers=1), n_shards=2)
    (kept,) = (run_with.out / FAILURES).iterdir()
    assert kept.read_text() == "Traceback: of a shard"
    assert f'"traceback": "{FAILURES}/{kept.name}"' in (run_with.out / "events.jsonl").read_text()


def test_a_worker_whose_machine_lost_the_inputs_is_replaced(run_with, monkeypatch):
    """What it had queued is put back, and learns nothing from it."""

    class LosingEngine(FakeEngine):
        n_killed = 0

        def submit(self, worker, task):
            if worker:
                super().submit(worker, task)
            elif not self.events:  # of two that it is given, the first
                error = InputsGoneError("the mount is gone")
                self.events.append(Failed(worker, task.attempt, error))

        def kill(self, worker):
            self.n_killed += 1
            super().kill(worker)

    def blame(*_):
        raise AssertionError("a queued shard was blamed")

    monkeypatch.setattr(driver.RunInputs, "are_gone", lambda *_: False)
    monkeypatch.setattr(driver.Schedule, "lose", blame)
    engine = LosingEngine({}, [GOOD], max_workers=1)
    run_with(engine)
    assert engine.n_killed == 1
    assert len(engine.starts) == 2


def test_so_many_warnings_a_minute_are_sent(monkeypatch):
    sent, now = [], 100.0
    monkeypatch.setattr("pipelines.corpus.engines.forwarding.time.monotonic", lambda: now)
    handler = ForwardWarnings(sent.append)
    for i in range(50):
        record = logging.LogRecord("amg.x", logging.WARNING, "", 0, "bad\nimage %d", (i,), None)
        handler.handle(record)
    assert sent[0] == "amg.x: bad image 0"
    assert len(sent) == 20
    now += 61
    handler.handle(logging.LogRecord("amg.x", logging.ERROR, "", 0, "worse", (), None))
    assert sent[20:] == ["amg.x: worse (and 30 warnings before it)"]
