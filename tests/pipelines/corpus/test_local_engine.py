"""Workers as child processes: what the engine tells of them, and what it shrugs off."""

import pytest

from amg.config import Config
from pipelines.corpus.engines.local import LocalEngine
from pipelines.corpus.messages import Died, Failed, Node, Placed, WorkerSetup
from pipelines.corpus.worker import segmenting
from tests.pipelines.helpers import FINGERPRINT, wait_until, write_plan
from tests.pipelines.stub import BROKEN, REFUSED, START_VARIABLE, make_stub

pytestmark = pytest.mark.usefixtures("forked")


@pytest.fixture
def engine(tmp_path):
    write_plan(tmp_path, n_images=1)
    setup = WorkerSetup(str(tmp_path), Config(), segmenting(make_stub), FINGERPRINT, None)
    engine = LocalEngine(setup, 1)
    yield engine
    engine.close()


def test_a_worker_that_ends_while_its_failure_is_read_may_be_killed(engine, monkeypatch):
    monkeypatch.setenv(START_VARIABLE, REFUSED)
    worker = engine.start(frozenset())
    ended = engine._children[worker].process.poll
    wait_until(lambda: ended() is not None)
    placed, failed, died = engine.wait(0)
    assert (type(placed), type(failed), type(died)) == (Placed, Failed, Died)
    assert "this worker is refused" in failed.traceback
    engine.kill(worker)
    assert engine.wait(0) == []
    assert engine.start(frozenset()) == worker + 1


def test_an_error_of_no_kind_that_is_known_comes_with_its_traceback(engine, monkeypatch):
    monkeypatch.setenv(START_VARIABLE, BROKEN)
    engine.start(frozenset())
    events = []
    wait_until(lambda: events.extend(engine.wait(0.1)) or len(events) > 1)
    placed, died = events
    assert died.reason == "RuntimeError: a bug that this start finds, in two lines"
    assert "make_stub" in died.traceback
    assert engine.wait(0.1) == []
    assert engine.start(frozenset({placed.node})) is None


def test_a_child_that_cannot_be_born_is_an_event(engine, monkeypatch):
    def refuse(*_, **__):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(engine, "_spawn", refuse)
    engine.start(frozenset())
    _, died = engine.wait(0)
    assert "temporarily unavailable" in died.reason


def places(engine):
    return [event for event in engine.wait(0) if isinstance(event, Placed)]


def test_workers_share_devices_and_leave_out_those_to_avoid(engine):
    engine = LocalEngine(engine._setup, 4, ("cuda:0", "cuda:1"))
    for _ in range(2):
        engine.start(frozenset({Node("cuda:0", "")}))
    assert [event.node.id for event in places(engine)] == ["cuda:1", "cuda:1"]
    assert engine.start(frozenset({Node("cuda:0", "")})) is None
    engine.start(frozenset())
    assert [event.node.id for event in places(engine)] == ["cuda:0"]
    engine.close()
