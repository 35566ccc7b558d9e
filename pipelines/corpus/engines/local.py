"""Workers as child processes of this one: no Ray, and an image that kills one kills no more."""

import logging
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Set
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from amg.errors import ConfigError
from amg.ops.processes import usable_cores
from pipelines.corpus.messages import (
    Died,
    Event,
    MakeWorker,
    Node,
    Placed,
    ShardTask,
    WorkerSetup,
)

logger = logging.getLogger(__name__)
_GRACE_S = 1.0
_KILL_S = 10.0


@dataclass
class _Child:
    process: "subprocess.Popen[bytes]"
    pipe: Any  # a Connection; their types differ by platform
    outbox: "queue.SimpleQueue[Any]"
    node: Node


class LocalEngine:
    """Starts `python -m pipelines.corpus.engines.child`, and talks to it over a pipe."""

    def __init__(self, setup: WorkerSetup, max_workers: int, devices: tuple[str, ...] = ()) -> None:
        """Take what workers need; they share `devices` evenly, if there are any.

        Raises ConfigError for a function of a script or notebook, or within another: workers
        cannot import it.
        """
        for argument, make in _makers(setup.make_worker).items():
            if make.__module__ == "__main__":
                name = getattr(make, "__qualname__", type(make).__qualname__)
                raise ConfigError(f"{argument}: put {name} into a module that workers can import")
        try:
            pickle.dumps(setup)
        except Exception as error:  # an object's own code takes part
            raise ConfigError(f"make_generator: it cannot be sent to workers: {error}") from error
        self.max_workers = max_workers
        self._setup = setup
        host = socket.gethostname()
        self._nodes = {Node(d, host): d for d in devices} or {Node(host, host): None}
        self._room = -(-max_workers // len(self._nodes))
        self._children: dict[int, _Child] = {}
        self._news: list[Event] = []
        self._started = 0

    def nodes(self) -> Set[Node]:
        return self._nodes.keys()

    def start(self, avoid: Set[Node]) -> int | None:
        node = self._freest_node(avoid)
        if node is None:
            return None
        worker = self._started
        self._started += 1
        self._news.append(Placed(worker, node))
        try:
            self._children[worker] = self._spawn(node)
        except OSError as error:  # no memory or process is left for it now
            self._news.append(Died(worker, str(error)))
        else:
            self._children[worker].outbox.put((worker, self._setup_for(self._nodes[node])))
        return worker

    def _spawn(self, node: Node) -> _Child:
        ours, theirs = Pipe()
        process = subprocess.Popen(  # noqa: S603 - our own module
            # -P: our import path, and not the current folder in front of it
            [sys.executable, "-P", "-m", "pipelines.corpus.engines.child", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno() if _has_fileno(sys.stderr) else None,
            env=self._environment(),
            start_new_session=True,  # Ctrl-C is for the driver, which lets workers finish
        )
        theirs.close()
        child = _Child(process, ours, queue.SimpleQueue(), node)
        # A child that hangs may not read: what waits for it must not hold up the driver.
        threading.Thread(target=_send_all, args=(child,), daemon=True).start()
        return child

    def _freest_node(self, avoid: Set[Node]) -> Node | None:
        """The node with the fewest workers that has room for its share of them."""
        used = Counter(child.node for child in self._children.values())
        open_ones = (n for n in self._nodes if n not in avoid and used[n] < self._room)
        return min(open_ones, key=lambda node: used[node], default=None)

    def _environment(self) -> dict[str, str]:
        """Ours, with our import path, and a fair share of the cores for torch."""
        threads = max(1, usable_cores() // self.max_workers)
        shared = {} if self.max_workers == 1 else {"OMP_NUM_THREADS": str(threads)}
        path = os.pathsep.join(folder or str(Path.cwd()) for folder in sys.path)
        return {**shared, **os.environ, "PYTHONPATH": path}

    def _setup_for(self, device: str | None) -> WorkerSetup:
        if device is None:
            return self._setup
        config = self._setup.config
        model = config.model.model_copy(update={"device": device})
        return replace(self._setup, config=config.model_copy(update={"model": model}))

    def submit(self, worker: int, task: ShardTask) -> None:
        self._children[worker].outbox.put(task)

    def wait(self, timeout_s: float) -> list[Event]:
        pipes = {child.pipe: worker for worker, child in self._children.items()}
        events, self._news = self._news, []
        for pipe in wait(list(pipes), 0 if events else timeout_s):
            events += self._drain(pipes[pipe])
        return events

    def _drain(self, worker: int) -> list[Event]:
        """All that a worker has said by now; the last is `Died` if it is gone."""
        child = self._children[worker]
        events: list[Event] = []
        try:
            while child.pipe.poll():
                events.append(child.pipe.recv())
                if isinstance(events[-1], Died):
                    self._end(worker)
                    break
        except (EOFError, OSError):
            self._end(worker)
            events.append(Died(worker, _describe(child.process.poll())))
        return events

    def kill(self, worker: int) -> None:
        if worker in self._children:  # else it has ended, and the driver reads of it later
            self._children[worker].process.kill()
            self._end(worker)

    def _end(self, worker: int) -> None:
        child = self._children.pop(worker)
        with suppress(subprocess.TimeoutExpired):
            child.process.wait(_GRACE_S)  # at the end of its pipe it is ending already
        child.process.kill()
        try:
            child.process.wait(_KILL_S)
        except subprocess.TimeoutExpired:  # stuck in the kernel: a dead file server, a driver
            logger.error("worker process %d cannot be killed", child.process.pid)
        child.outbox.put(None)
        child.pipe.close()

    def close(self) -> None:
        for worker in list(self._children):
            self.kill(worker)


def _makers(make: MakeWorker) -> dict[str, Any]:
    """The functions that a worker is made with, which it must import, by the argument's name."""
    bound = make.keywords if isinstance(make, partial) else {}
    makers = {"make_worker": make, **bound}
    return {name: _unbound(value) for name, value in makers.items() if callable(value)}


def _unbound(make: Any) -> Any:
    return _unbound(make.func) if isinstance(make, partial) else make


def _send_all(child: _Child) -> None:
    with suppress(OSError):  # it has died: `wait` says so
        while (message := child.outbox.get()) is not None:
            child.pipe.send(message)


def _describe(code: int | None) -> str:
    """How a process ended, for people."""
    if code is None or code >= 0:
        return f"the worker ended with exit code {code}"
    known = {member.value: member.name for member in signal.Signals}
    name = known.get(-code, f"signal {-code}")
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"the worker was ended by {name}{hint}"


def _has_fileno(stream: Any) -> bool:
    try:
        stream.fileno()
    except (AttributeError, OSError, ValueError):  # a notebook's, a test's
        return False
    return True
