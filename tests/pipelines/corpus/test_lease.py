"""One driver a folder: in this process, in others, on a file system and on an object store."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from amg.errors import RunError, StorageError
from amg.storage.stores import open_storage
from pipelines.corpus import lease as lease_module
from pipelines.corpus.lease import hold_lease
from tests.pipelines.helpers import wait_until

WHOLE, FIRST, SECOND, THIRD_OF_THREE = (0, 1), (0, 2), (1, 2), (2, 3)

HOLDER = """
import sys
from amg.storage.stores import open_storage
from pipelines.corpus.lease import hold_lease
with hold_lease(open_storage(sys.argv[1]), (int(sys.argv[2]), int(sys.argv[3]))):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def store():
    """An object store."""
    return open_storage(f"memory://{uuid.uuid4().hex}/out")


class Clock:
    """The time by which leases run out: it stands still but for `forward`, however busy we are."""

    def __init__(self):
        self._now_s = time.time()

    def now(self):
        return self._now_s

    def forward(self, seconds):
        self._now_s += seconds


@pytest.fixture
def clock(monkeypatch):
    """A clock of leases that last 0.4 s, and are renewed each 0.1 s of real time."""
    clock = Clock()
    times = SimpleNamespace(time=clock.now, monotonic=clock.now, sleep=time.sleep)
    monkeypatch.setattr(lease_module, "time", times)
    monkeypatch.setattr(lease_module, "LEASE_S", 0.4)
    return clock


@contextmanager
def _other_process(storage, slice_=WHOLE):
    """A process that holds a lease until it is told to end, or killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, storage.address, *map(str, slice_)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def _is_free(storage, slice_=WHOLE):
    try:
        with hold_lease(storage, slice_) as lease:
            lease.check()
    except RunError:
        return False
    return True


def _write_lease(storage, name="0-of-1", *, until, owner="another", **values):
    record = {"host": "far", "pid": 4711, "owner": owner, "until": until, **values}
    storage.write(f"leases/{name}.json", json.dumps(record).encode())


def test_a_second_holder_is_refused_by_name_until_the_first_has_gone(storage):
    with hold_lease(storage) as lease:
        lease.check()
        with pytest.raises(RunError, match=f"process {os.getpid()} on") as caught:
            hold_lease(storage).__enter__()
        assert storage.url() in str(caught.value)
        assert not _is_free(storage), "being refused must not free it"
        lease.check()
    assert _is_free(storage)


def test_a_lease_is_freed_when_its_holder_fails(storage):
    with pytest.raises(KeyError), hold_lease(storage):
        raise KeyError("stop")
    assert _is_free(storage)


@pytest.mark.parametrize(
    ("held", "wanted"), [(FIRST, WHOLE), (WHOLE, SECOND), (FIRST, THIRD_OF_THREE), (FIRST, FIRST)]
)
def test_slices_that_may_overlap_exclude_each_other(storage, held, wanted):
    with hold_lease(storage, held):
        assert not _is_free(storage, wanted)
        assert not _is_free(storage, wanted), "who was refused holds nothing"
        assert _is_free(storage, SECOND if held == FIRST else WHOLE) == (held == FIRST)
    assert _is_free(storage, wanted)
    assert _is_free(storage, held)


def test_disjoint_slices_are_held_together(storage):
    with hold_lease(storage, FIRST) as first, hold_lease(storage, SECOND) as second:
        first.check()
        second.check()


def test_stale_locks_of_other_counts_are_in_nobodys_way(tmp_path):
    """Slices that begin together all look at them, at the same time."""
    storage = open_storage(tmp_path / "out")
    for i in range(8):
        with hold_lease(storage, (i, 8)):
            pass
    holding, n = threading.Barrier(24), 24
    refused: list[RunError] = []

    def hold(i):
        holding.wait()
        try:
            with hold_lease(storage, (i, n)):
                holding.wait()
        except RunError as error:
            refused.append(error)
            holding.abort()
        except threading.BrokenBarrierError:
            pass

    for _ in range(10):
        threads = [threading.Thread(target=hold, args=(i,)) for i in range(n)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert refused == []


def test_another_process_is_refused_and_freed_when_it_ends(tmp_path):
    storage = open_storage(tmp_path)
    with _other_process(storage) as process:
        with pytest.raises(RunError, match=f"process {process.pid} on"):
            hold_lease(storage).__enter__()
        assert not _is_free(storage, FIRST)
        process.communicate(timeout=20)
        assert process.returncode == 0
        assert _is_free(storage)
        assert _is_free(storage, FIRST)


def test_a_killed_process_holds_nothing(tmp_path):
    storage = open_storage(tmp_path)
    with _other_process(storage, FIRST) as process:
        assert not _is_free(storage)
        assert _is_free(storage, SECOND)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(20)
        assert _is_free(storage)
        assert _is_free(storage, FIRST)


def test_children_of_the_holder_do_not_keep_its_lock(tmp_path):
    storage = open_storage(tmp_path)
    with hold_lease(storage):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert _is_free(storage)
    finally:
        child.kill()
        child.communicate()


def test_a_folder_that_cannot_be_locked_is_a_storage_error(tmp_path, monkeypatch):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(StorageError, match=rf"cannot lock {tmp_path}/out/\.leases: Not a dir"):
        hold_lease(open_storage(tmp_path / "out")).__enter__()

    def no_locks(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("amg.storage.retry.WAITS_S", ())
    monkeypatch.setattr("amg.storage.locks.fcntl.flock", no_locks)
    with pytest.raises(StorageError, match="No locks available"):
        hold_lease(open_storage(tmp_path)).__enter__()


def test_a_full_disk_does_not_keep_anybody_from_locking(tmp_path, monkeypatch):
    storage = open_storage(tmp_path)

    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("amg.storage.locks.signature", full)
    monkeypatch.setattr("amg.storage.locks._PATIENCE_S", 0.1)
    with hold_lease(storage):
        assert not _is_free(storage)
    assert _is_free(storage)


def test_a_lease_that_ran_out_is_taken_over_and_a_live_one_is_not(store):
    _write_lease(store, until=time.time() + 30)
    with pytest.raises(RunError, match="process 4711 on far"):
        hold_lease(store).__enter__()
    assert json.loads(store.read("leases/0-of-1.json"))["owner"] == "another"
    _write_lease(store, until=time.time() - 1)
    with hold_lease(store) as lease:
        lease.check()
        assert json.loads(store.read("leases/0-of-1.json"))["pid"] == os.getpid()
        assert not _is_free(store)
    assert store.list("leases") == {}


def test_a_slice_that_ran_out_is_in_nobodys_way(store):
    _write_lease(store, "0-of-2", until=time.time() - 1)
    assert _is_free(store)
    _write_lease(store, "0-of-2", until=time.time() + 30)
    assert not _is_free(store)
    assert list(store.list("leases")) == ["0-of-2.json"]


@pytest.mark.parametrize("text", [b"", b"no json", b"[1]", b"{}", b'{"until": "soon"}'])
def test_a_lease_that_is_not_understood_is_respected(store, text):
    store.write("leases/0-of-1.json", text)
    with pytest.raises(RunError, match="is in use"):
        hold_lease(store).__enter__()
    assert store.read("leases/0-of-1.json") == text


def test_a_lease_is_renewed_while_it_is_held(store, clock):
    with hold_lease(store) as lease:
        for _ in range(3):
            clock.forward(0.3)
            assert not _is_free(store)
            lease.check()
            wait_until(lambda: lease._renewed_at == clock.now())
            assert json.loads(store.read("leases/0-of-1.json"))["until"] == clock.now() + 0.4
    assert store.list("leases") == {}


def test_a_holder_that_cannot_renew_holds_nothing_until_it_can(store, clock, monkeypatch):
    def fail(*_):
        raise StorageError("the store is away")

    with hold_lease(store) as lease:
        monkeypatch.setattr(store, "read", fail)
        assert lease.is_held
        clock.forward(0.41)
        assert not lease.is_held
        lease.check()  # nobody has taken it
        monkeypatch.undo()
        wait_until(lambda: lease.is_held)


@pytest.mark.parametrize("what", ["taken over", "deleted", "damaged"])
def test_a_lease_that_others_took_is_noticed_and_left_to_them(store, clock, what):
    def was_noticed():
        try:
            lease.check()
        except RunError as error:
            assert "was lost" in str(error)
            return True
        return False

    with hold_lease(store) as lease:
        if what == "taken over":
            _write_lease(store, until=time.time() + 30)
        elif what == "deleted":
            store.delete(["leases/0-of-1.json"])
        else:
            store.write("leases/0-of-1.json", b"[")
        wait_until(was_noticed)  # no time goes by: it has not run out
        assert not lease.is_held
        left = store.read("leases/0-of-1.json")
    assert store.read("leases/0-of-1.json") == left
    assert (left is None) == (what == "deleted")


def test_a_lease_is_taken_once_it_has_run_out(store, clock):
    with hold_lease(store):
        kept = store.read("leases/0-of-1.json")
    store.write("leases/0-of-1.json", kept)  # as a killed holder leaves it
    assert not _is_free(store)
    clock.forward(0.41)
    assert _is_free(store)


def test_an_answer_that_got_lost_does_not_refuse_us_for_ourselves(store, monkeypatch):
    create = store.create

    def create_and_try_again(name, data):
        create(name, data)
        return create(name, data)

    monkeypatch.setattr(store, "create", create_and_try_again)
    assert _is_free(store)


def test_a_store_that_fails_while_others_are_looked_for_leaves_no_lease(store, monkeypatch):
    def fail(*_):
        raise StorageError("the store is away")

    monkeypatch.setattr("amg.storage.retry.WAITS_S", ())
    monkeypatch.setattr(store, "list", fail)
    with pytest.raises(StorageError, match="away"):
        hold_lease(store).__enter__()
    monkeypatch.undo()
    assert _is_free(store)


def test_a_lease_is_taken_through_passing_failures(store, monkeypatch):
    """What the first try has left, where its own mark is, is in nobody's way."""
    list_, failures = store.list, iter([True, True, False])

    def fail(folder):
        if next(failures):
            raise StorageError("the store is away")
        return list_(folder)

    monkeypatch.setattr("amg.storage.retry.WAITS_S", (0, 0))
    monkeypatch.setattr(store, "list", fail)
    with hold_lease(store) as lease:
        monkeypatch.undo()
        assert lease.is_held
        assert not _is_free(store)
