"""Workers as child processes of this one: no Ray, and an image that kills one kills no more."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import wait
from typing import Any

from pipelines.messages import Died, Event, ShardTask, WorkerSetup

_CLOSE_S = 5.0


@dataclass
class _Child:
    process: "subprocess.Popen[bytes]"
    pipe: Any  # a Connection; where types differ by platform


class LocalEngine:
    """Starts `python -m pipelines.engines.child`, and talks to it over a pipe."""

    def __init__(self, setup: WorkerSetup, max_workers: int, devices: tuple[str, ...] = ()) -> None:
        """Take what workers need; the i-th works on the i-th of `devices`, if there are any."""
        self.max_workers = max_workers
        self._setup = setup
        self._devices = devices
        self._children: dict[int, _Child] = {}
        self._started = 0

    def start(self) -> int:
        worker = self._started
        self._started += 1
        ours, theirs = Pipe()
        process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "pipelines.engines.child", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno() if _has_fileno(sys.stderr) else None,
            env=self._environment(),
            start_new_session=True,  # Ctrl-C is for the driver, which lets workers finish
        )
        theirs.close()
        ours.send((worker, self._setup_for(worker)))
        self._children[worker] = _Child(process, ours)
        return worker

    def _environment(self) -> dict[str, str]:
        """Ours, with our import path, and a fair share of the cores for torch."""
        threads = max(1, (os.cpu_count() or 1) // self.max_workers)
        shared = {} if self.max_workers == 1 else {"OMP_NUM_THREADS": str(threads)}
        return {**shared, **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    def _setup_for(self, worker: int) -> WorkerSetup:
        if not self._devices:
            return self._setup
        config = self._setup.config
        device = self._devices[worker % len(self._devices)]
        model = config.model.model_copy(update={"device": device})
        return replace(self._setup, config=config.model_copy(update={"model": model}))

    def submit(self, worker: int, task: ShardTask) -> None:
        with suppress(OSError):  # it has died: `wait` says so
            self._children[worker].pipe.send(task)

    def wait(self, timeout_s: float) -> list[Event]:
        pipes = {child.pipe: worker for worker, child in self._children.items()}
        events: list[Event] = []
        for pipe in wait(list(pipes), timeout_s):
            events += self._drain(pipes[pipe])
        return events

    def _drain(self, worker: int) -> list[Event]:
        """All that a worker has said by now; the last is `Died` if it is gone."""
        child = self._children[worker]
        events: list[Event] = []
        try:
            while child.pipe.poll():
                events.append(child.pipe.recv())
        except (EOFError, OSError):
            self._end(worker)
            events.append(Died(worker, _describe(child.process.returncode)))
        return events

    def kill(self, worker: int) -> None:
        self._end(worker)

    def _end(self, worker: int) -> None:
        child = self._children.pop(worker)
        child.process.kill()
        child.process.wait()
        child.pipe.close()

    def close(self) -> None:
        for worker in list(self._children):
            self._end(worker)


def _describe(code: int) -> str:
    """How a process ended, for people."""
    if code >= 0:
        return f"the worker ended with exit code {code}"
    name = signal.Signals(-code).name
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"the worker was ended by {name}{hint}"


def _has_fileno(stream: Any) -> bool:
    try:
        stream.fileno()
    except (AttributeError, OSError, ValueError):  # a notebook's, a test's
        return False
    return True
