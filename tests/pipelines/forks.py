"""Drivers and workers that begin at once: forked from a process that has imported what they need.

What they do is the product's code, as is what a signal does to them; only the start of an
interpreter is left out. That workers and drivers also begin in interpreters of their own is for
test_run.py, test_cli.py and some of test_faults.py to show.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines.corpus.engines import child, local
from tests.pipelines.helpers import DRIVER_VARIABLE, ROOT, run_to_an_exit_code

_CONTEXT = multiprocessing.get_context("forkserver")
# Where one of them is not installed, the tests that need it say so.
_IMPORTED = ("__main__", __name__, "pipelines.refilter", "amg.exports.formats", "s3fs")


@contextmanager
def serving_forks():
    """While this lasts, `ForkedWorker` and `ForkedDriver` have a process to be forked from."""
    _CONTEXT.set_forkserver_preload(list(_IMPORTED))
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(ROOT)
        patched.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, sys.path)]))
        patched.setenv("OMP_NUM_THREADS", "1")  # read when torch is imported
        forkserver.ensure_running()
    yield
    for pid in _children(forkserver._forkserver._forkserver_pid):
        with suppress(ProcessLookupError):  # a test has failed; the server would wait for it
            os.kill(pid, signal.SIGKILL)
    forkserver._forkserver._stop()


def _children(parent):
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(entry.name))
    return found


class ForkedWorker:
    """What the local engine needs of a `Popen` of its worker process."""

    def __init__(self, command, *, pass_fds, env, **_):
        assert command[-3:-1] == ["-m", child.__name__]
        pipe = Connection(os.dup(pass_fds[0]))
        self._process = _CONTEXT.Process(target=_work, args=(pipe, env), daemon=True)
        self._process.start()
        pipe.close()
        self.pid = self._process.pid

    def poll(self):
        return self._process.exitcode

    def wait(self, timeout=None):
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(child.__name__, timeout)
        return self._process.exitcode

    def kill(self):
        self._process.kill()


def fork_workers(patched):
    """From now on the local engines of this process fork their workers."""
    forking = SimpleNamespace(**{**vars(subprocess), "Popen": ForkedWorker})
    patched.setattr(local, "subprocess", forking)


class ForkedDriver:
    """`run_to_an_exit_code` in a process that may be killed, with its workers forked too.

    `run`: something else to do with the same arguments, all of them text.
    """

    def __init__(self, inputs, out, *overrides, run=run_to_an_exit_code, **environment):
        self._notes = _notes(out)
        self._notes.mkdir(exist_ok=True)
        env = {**os.environ, DRIVER_VARIABLE: str(out), **environment}
        arguments = (_server(), run, env, str(inputs), str(out), *overrides)
        self._process = _CONTEXT.Process(target=_drive, args=arguments)
        self._process.start()
        self.pid = self._process.pid

    def poll(self):
        return self._process.exitcode

    def kill(self):
        self._process.kill()

    def send_signal(self, number):
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, timeout=120):
        """The exit code."""
        self._process.join(timeout)
        assert self._process.exitcode is not None, f"still at work after {timeout} s"
        return self._process.exitcode

    def said(self):
        """All that it and its workers wrote to their standard error output."""
        return (self._notes / "said").read_text()


def running_forks(out):
    """Process ids of forked workers that were started by drivers of this folder."""
    pids = [int(path.name) for path in _notes(out).iterdir() if path.name.isdigit()]
    return [pid for pid in pids if _is_a_fork(pid)]


def _is_a_fork(pid):
    with suppress(OSError):
        return b"forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _notes(out):
    """A folder beside a run's: what its forked drivers said, and who their workers are."""
    return Path(f"{out}.forks")


def _server():
    """Where the process is that is forked: what a forked one must know to have others forked.

    Multiprocessing would have it start a server of its own.
    """
    names = ("_forkserver_address", "_forkserver_authkey")  # the key since Python 3.14
    known = vars(forkserver._forkserver)
    return {name: known[name] for name in names if name in known}


def _drive(server, run, env, inputs, out, *overrides):
    vars(forkserver._forkserver).update(server, ensure_running=lambda: None)
    _begin(env)
    fork_workers(pytest.MonkeyPatch())
    run(inputs, out, *overrides)


def _work(pipe, env):
    _begin(env)
    if DRIVER_VARIABLE in env:
        (_notes(env[DRIVER_VARIABLE]) / str(os.getpid())).touch()
    child.main(pipe.fileno())


def _begin(env):
    os.environ.clear()
    os.environ.update(env)
    os.setsid()
    if DRIVER_VARIABLE in env:
        said = _notes(env[DRIVER_VARIABLE]) / "said"
        os.dup2(os.open(said, os.O_CREAT | os.O_WRONLY | os.O_APPEND), 2)
