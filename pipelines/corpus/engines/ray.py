"""Workers as Ray actors: on this machine, or all over a cluster that may grow and shrink.

Ray Core only. The driver asks for as many actors as may work at once: those without room wait in
Ray's queue, which is what makes a cluster's autoscaler add nodes, and join when they start. No
actor is restarted or task retried by Ray: the driver counts what fails.
"""

import logging
import os
import re
import socket
from collections import deque
from collections.abc import Set
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before the import: no calls home

import ray
from ray.exceptions import (
    ActorUnavailableError,
    GetTimeoutError,
    RayActorError,
    RayError,
    RayTaskError,
)
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    NotIn,
)

from amg.errors import InterruptedRunError
from amg.shadow import require_our_pipelines
from pipelines.corpus.engines.forwarding import ForwardWarnings
from pipelines.corpus.engines.ray_cluster import (
    actor_options,
    connect,
    n_fitting,
    node_label,
    say_what_was_joined,
)
from pipelines.corpus.messages import (
    Died,
    Event,
    Moved,
    Node,
    Placed,
    ShardTask,
    ShardWorker,
    WorkerSetup,
)
from pipelines.corpus.serve import attempt, begin, in_a_line

logger = logging.getLogger(__name__)
_COLLECT_TIMEOUT_S = 10.0
_MOST_WARNINGS = 1000
_GUESSES = re.compile(r"\s*(Some common causes|There are some potential root causes)")


class _Mailbox:
    """Keeps each worker's last progress, and its warnings, beyond the worker's death."""

    def __init__(self) -> None:
        self._moved: dict[int, Moved] = {}
        self._warnings: deque[tuple[int, str]] = deque(maxlen=_MOST_WARNINGS)

    def tell(self, moved: Moved) -> None:
        self._moved[moved.worker] = moved

    def warn(self, worker: int, text: str) -> None:
        self._warnings.append((worker, text))

    def collect(self) -> tuple[list[Moved], list[tuple[int, str]]]:
        """What is new since the last time: progress and warnings."""
        news = list(self._moved.values()), list(self._warnings)
        self._moved.clear()
        self._warnings.clear()
        return news


class _Actor:
    """A worker in a process of Ray's."""

    def __init__(self, number: int, mailbox: Any) -> None:
        self._number, self._mailbox = number, mailbox
        self._worker: ShardWorker | None = None
        logging.getLogger().addHandler(ForwardWarnings(self._warn))

    def _warn(self, text: str) -> None:
        with suppress(RayError):
            self._mailbox.warn.remote(self._number, text)

    def place(self) -> Event:
        """Where this is: asked first, since what comes then may end the process."""
        node = ray.get_runtime_context().get_node_id()
        return Placed(self._number, Node(node, socket.gethostname()))

    def begin(self, setup: WorkerSetup) -> Event:
        events: list[Event] = []

        def tell(event: Event) -> None:
            if not isinstance(event, Moved):
                events.append(event)
                return
            with suppress(RayError):  # no mailbox, no driver: nobody is left to tell
                told = self._mailbox.tell.remote(event)
                if len(event.progress.in_flight) == 1:
                    ray.get(told)  # if this image kills us, it must be known that it was alone

        self._worker = begin(self._number, setup, tell)
        return events[0]

    def attempt(self, task: ShardTask) -> Event:
        assert self._worker is not None
        return attempt(self._number, self._worker, task)


class RayEngine:
    """Workers of a Ray cluster; one is started on this machine where Ray knows of none."""

    def __init__(self, setup: WorkerSetup, n_shards: int) -> None:
        self._setup = setup
        require_our_pipelines(front=[str(Path.cwd())])  # Ray puts it there for its workers
        wanted = setup.config.engine
        joined, self._owns_ray = connect(wanted)
        have = ray.cluster_resources()
        self._options = actor_options(wanted, have, joined=joined)
        fitting = max(1, n_fitting(self._options, have))
        self.max_workers = min(wanted.max_workers or fitting, n_shards)
        if joined:
            say_what_was_joined(have, None if wanted.max_workers else self.max_workers)
        # Beside the driver: other nodes come and go.
        node = ray.get_runtime_context().get_node_id()
        here: Any = NodeAffinitySchedulingStrategy(node, soft=False)
        mailbox: Any = ray.remote(num_cpus=0, scheduling_strategy=here)(_Mailbox)
        self._mailbox: Any = mailbox.remote()
        self._collecting: Any = None
        self._actors: dict[int, Any] = {}
        self._pending: dict[Any, int] = {}
        self._started = 0

    def nodes(self) -> Set[Node]:
        return {
            Node(node["NodeID"], node["NodeManagerHostname"])
            for node in ray.nodes()
            if node["Alive"] and n_fitting(self._options, node["Resources"])
        }

    def start(self, avoid: Set[Node]) -> int | None:
        options = self._options
        if avoid:
            there = self.nodes()
            if there and there <= avoid:
                return None
            elsewhere = NodeLabelSchedulingStrategy({node_label(): NotIn(*(n.id for n in avoid))})
            options = {**options, "scheduling_strategy": elsewhere}
        number = self._started
        self._started += 1
        actor: Any = ray.remote(**options)(_Actor).remote(number, self._mailbox)
        self._actors[number] = actor
        self._pending[actor.place.remote()] = number
        self._pending[actor.begin.remote(self._setup)] = number
        return number

    def submit(self, worker: int, task: ShardTask) -> None:
        self._pending[self._actors[worker].attempt.remote(task)] = worker

    def wait(self, timeout_s: float) -> list[Event]:
        done, _ = ray.wait(list(self._pending), num_returns=1, timeout=timeout_s)
        if done:
            done, _ = ray.wait(list(self._pending), num_returns=len(self._pending), timeout=0)
        outcomes = [self._outcome(ref) for ref in done if ref in self._pending]
        # After the outcomes were known to be there: a dead worker's last words are among these.
        heard = self._collect(wait=any(isinstance(outcome, Died) for outcome in outcomes))
        return [*heard, *outcomes]

    def _outcome(self, ref: Any) -> Event:
        worker = self._pending.pop(ref)
        try:
            outcome: Event = ray.get(ref)
        except RayActorError as error:
            outcome = Died(worker, _reason(error), blameless=_is_node_loss(error))
        except RayError as error:  # an error of no kind that we know: not to be trusted again
            outcome = Died(worker, _reason(error), traceback=str(error))
        if isinstance(outcome, Died):
            self.kill(worker)
        return outcome

    def _collect(self, *, wait: bool) -> list[Event]:
        """News from the mailbox: what was asked for earlier, or all of it now."""
        events: list[Event] = []
        try:
            if self._collecting is not None and (
                wait or ray.wait([self._collecting], timeout=0)[0]
            ):
                events += self._hear()
            if self._collecting is None:
                self._collecting = self._mailbox.collect.remote()
            if wait:
                events += self._hear()
        except (RayActorError, GetTimeoutError) as error:
            raise InterruptedRunError(
                f"Ray has lost the driver's mailbox: {_reason(error)}"
            ) from error
        return events

    def _hear(self) -> list[Moved]:
        moved, warnings = ray.get(self._collecting, timeout=_COLLECT_TIMEOUT_S)
        self._collecting = None
        for worker, text in warnings:
            logger.warning("worker %d: %s", worker, text)
        return moved

    def kill(self, worker: int) -> None:
        actor = self._actors.pop(worker, None)
        self._pending = {ref: n for ref, n in self._pending.items() if n != worker}
        if actor is not None:
            with suppress(RayError, ValueError):  # it may be gone
                ray.kill(actor)

    def close(self) -> None:
        for worker in list(self._actors):
            self.kill(worker)
        with suppress(RayError):
            ray.kill(self._mailbox)
        if self._owns_ray:
            ray.shutdown()


def _is_node_loss(error: RayActorError) -> bool:
    if isinstance(error, ActorUnavailableError):  # the network's fault, or its node is going
        return True
    text = str(error).lower()
    return (
        bool(getattr(error, "preempted", False))
        or "node has died" in text
        or ("node" in text and "was terminated" in text)
    )


def _reason(error: BaseException) -> str:
    """Why, in a line: Ray begins with frames, ids and addresses."""
    if isinstance(error, RayTaskError):
        return in_a_line(f"{type(error.cause).__name__}: {error.cause}")
    text = str(error).strip() or type(error).__name__
    if isinstance(error, RayActorError) and "ray::" in text:  # its constructor's traceback
        text = text.splitlines()[-1]
    _, _, why = text.partition("The actor is dead because ")
    return in_a_line(_GUESSES.split(why or text)[0])
