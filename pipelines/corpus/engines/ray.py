"""Workers as Ray actors: on this machine, or all over a cluster that may grow and shrink.

Ray Core only. The driver asks for as many actors as may work at once: those without room wait in
Ray's queue, which is what makes a cluster's autoscaler add nodes, and join when they start. No
actor is restarted or task retried by Ray: the driver counts what fails.
"""

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before the import: no calls home

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from amg.config import EngineConfig
from amg.errors import ConfigError, InterruptedRunError
from amg.shadow import require_our_pipelines
from pipelines.corpus.messages import Died, Event, Moved, ShardTask, ShardWorker, WorkerSetup
from pipelines.corpus.serve import attempt, begin

logger = logging.getLogger(__name__)
_COLLECT_TIMEOUT_S = 10.0


class _Mailbox:
    """Keeps each worker's last progress, beyond the worker's death."""

    def __init__(self) -> None:
        self._moved: dict[int, Moved] = {}

    def tell(self, moved: Moved) -> None:
        self._moved[moved.worker] = moved

    def collect(self) -> list[Moved]:
        """What is new since the last time."""
        moved, self._moved = list(self._moved.values()), {}
        return moved


class _Actor:
    """A worker in a process of Ray's."""

    def __init__(self, number: int, mailbox: Any) -> None:
        self._number, self._mailbox = number, mailbox
        self._worker: ShardWorker | None = None

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
    """Workers of a Ray cluster; one is started on this machine if no address is given."""

    def __init__(self, setup: WorkerSetup, n_shards: int) -> None:
        self._setup = setup
        require_our_pipelines(front=[str(Path.cwd())])  # Ray puts it there for its workers
        self._owns_ray = _connect(setup.config.engine)
        self._options, fitting = _resources(setup.config.engine)
        self.max_workers = min(setup.config.engine.max_workers or fitting, n_shards)
        # Beside the driver: other nodes come and go.
        node = ray.get_runtime_context().get_node_id()
        here: Any = NodeAffinitySchedulingStrategy(node, soft=False)
        mailbox: Any = ray.remote(num_cpus=0, scheduling_strategy=here)(_Mailbox)
        self._mailbox: Any = mailbox.remote()
        self._collecting: Any = None
        self._actors: dict[int, Any] = {}
        self._pending: dict[Any, int] = {}
        self._started = 0

    def start(self) -> int:
        number = self._started
        self._started += 1
        actor: Any = ray.remote(**self._options)(_Actor).remote(number, self._mailbox)
        self._actors[number] = actor
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
            return ray.get(ref)
        except RayActorError as error:
            outcome = Died(worker, _first_line(error), blameless=_is_node_loss(error))
        except RayError as error:  # an error of no kind that we know: not to be trusted again
            outcome = Died(worker, _first_line(error))
        self.kill(worker)
        return outcome

    def _collect(self, *, wait: bool) -> list[Event]:
        """News from the mailbox: what was asked for earlier, or all of it now."""
        events: list[Event] = []
        try:
            if self._collecting is not None and (
                wait or ray.wait([self._collecting], timeout=0)[0]
            ):
                events += ray.get(self._collecting, timeout=_COLLECT_TIMEOUT_S)
                self._collecting = None
            if self._collecting is None:
                self._collecting = self._mailbox.collect.remote()
            if wait:
                events += ray.get(self._collecting, timeout=_COLLECT_TIMEOUT_S)
                self._collecting = None
        except (RayActorError, GetTimeoutError) as error:
            raise InterruptedRunError(
                f"Ray has lost the driver's mailbox: {_first_line(error)}"
            ) from error
        return events

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


def _connect(config: EngineConfig) -> bool:
    """Join the cluster, or start one here; whether it is ours to end.

    Raises ConfigError for an address where no cluster answers.
    """
    if ray.is_initialized():
        return False
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if config.address is None:
            # "local", or RAY_ADDRESS would lead to another cluster.
            ray.init("local", include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
        else:
            ray.init(address=config.address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(f"engine.address: {config.address!r}: {_first_line(error)}") from error
    return True


def _resources(config: EngineConfig) -> tuple[dict[str, Any], int]:
    """What an actor asks of Ray, and how many of them fit the cluster as it is now."""
    have = ray.cluster_resources()
    gpus = config.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if have.get("GPU") else 0.0
        if not gpus and config.address is not None:
            logger.warning(
                "this cluster shows no GPU, so workers will use none; "
                "where nodes with GPUs are yet to come, give --gpus-per-worker"
            )
    cpus = 1.0 if config.cpus_per_worker is None else config.cpus_per_worker
    fits = [have.get(kind, 0) / each for kind, each in (("CPU", cpus), ("GPU", gpus)) if each]
    options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0}
    return options, max(1, int(min(fits, default=1)))


def _is_node_loss(error: RayActorError) -> bool:
    if isinstance(error, ActorUnavailableError):  # the network's fault, or its node is going
        return True
    text = str(error).lower()
    return (
        bool(getattr(error, "preempted", False))
        or "node has died" in text
        or ("node" in text and "was terminated" in text)
    )


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
