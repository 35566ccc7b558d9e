"""Locks: who is refused and who waits, after holders that let go, live on, or were killed."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from amg.storage import locks
from amg.storage.locks import LockTakenError, require_free, signature, take_lock

HOST = socket.gethostname()
# A holder is killed while a child of its own still has its open files, as between fork and exec.
KILLED_BESIDE_A_CHILD = """
import os, signal, subprocess, sys
from pathlib import Path
from amg.storage.locks import take_lock
lock = take_lock(Path(sys.argv[1]))
subprocess.Popen(["cat"], pass_fds=[lock.fileno()])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lock"


@pytest.fixture(scope="module")
def dead():
    """The number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def _signature(pid, host=HOST):
    return json.dumps({"host": host, "pid": pid, "since": time.time()})


@contextmanager
def _held(path, text):
    """A lock that is held, signed with a text."""
    with take_lock(path) as file:
        file.truncate(0)
        file.write(text.encode())
        yield file


def _refusal(path):
    """The error of a lock that is held, and after how long it came."""
    began = time.monotonic()
    with pytest.raises(LockTakenError) as caught:
        take_lock(path)
    with pytest.raises(LockTakenError):
        require_free(path)
    return caught.value, time.monotonic() - began


def test_a_lock_is_held_by_one_until_it_is_closed(path):
    with take_lock(path):
        error, waited_s = _refusal(path)
        assert json.loads(error.holder)["pid"] == os.getpid()
        assert waited_s < locks._PATIENCE_S
    require_free(path)
    take_lock(path).close()


def test_the_lock_of_a_killed_process_is_waited_for_while_its_child_has_it(path):
    code = [sys.executable, "-c", KILLED_BESIDE_A_CHILD, str(path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    killed = subprocess.Popen(code, stdin=subprocess.PIPE, env=environment)
    assert killed.wait() == -signal.SIGKILL
    with path.open("ab") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    timer = threading.Timer(0.3, killed.stdin.close)  # the child ends
    timer.start()
    with take_lock(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    timer.join()


def test_a_killed_process_that_nobody_has_waited_for_is_dead(path):
    process = subprocess.Popen(["sleep", "60"])
    assert not locks._may_be_gone(_signature(process.pid))
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert locks._may_be_gone(_signature(process.pid)) == (sys.platform == "linux")
    process.wait()
    assert locks._may_be_gone(_signature(process.pid))


@pytest.mark.parametrize("text", ["", '{"host": "h', "[1]", "null", '{"host": "h", "pid": "x"}'])
def test_who_has_not_signed_yet_is_waited_for_and_then_named(path, text):
    with _held(path, text) as file:

        def sign():
            file.truncate(0)
            file.write(signature().encode())

        timer = threading.Timer(0.1, sign)
        timer.start()
        error, _ = _refusal(path)
        timer.join()
    assert json.loads(error.holder)["pid"] == os.getpid()


@pytest.mark.parametrize("pid", ["own", 1, "dead", 2**70])
def test_who_lives_or_may_live_elsewhere_is_not_waited_for(path, dead, pid):
    pid = {"own": os.getpid(), "dead": dead}.get(pid, pid)
    host = "far" if pid == dead else HOST
    with _held(path, _signature(pid, host)):
        _, waited_s = _refusal(path)
    assert waited_s < locks._PATIENCE_S


def test_a_lock_that_does_not_come_free_is_not_taken(path, dead, monkeypatch):
    monkeypatch.setattr(locks, "_PATIENCE_S", 0.1)
    with _held(path, _signature(dead)):
        error, waited_s = _refusal(path)
    assert json.loads(error.holder)["pid"] == dead
    assert waited_s > 0.1


def test_to_wait_is_to_wait_for_the_living_too(path):
    held = take_lock(path)
    timer = threading.Timer(0.1, held.close)
    timer.start()
    with take_lock(path, wait=True):
        assert held.closed
    timer.join()
