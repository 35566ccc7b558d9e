"""The loop that gives shards to workers until all are committed, whatever dies on the way."""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from amg.errors import AmgError, InterruptedRunError, ShardError, StorageError
from amg.runs.events import EventLog
from amg.runs.folder import Commit, Plan, Tally, attempt_file
from amg.runs.planned import PlannedInputs
from amg.runs.spool import CompleteInputs
from amg.storage.stores import Storage
from pipelines.corpus.commit import (
    commit_shard,
    forget_attempts,
    lost_attempts,
    mark_attempt,
    sweep_partials,
)
from pipelines.corpus.lease import Lease
from pipelines.corpus.messages import (
    Died,
    Engine,
    Event,
    Failed,
    Finished,
    Moved,
    Progress,
    Ready,
    ShardResult,
    WorkerSetup,
)
from pipelines.corpus.schedule import Schedule

logger = logging.getLogger(__name__)
_WAIT_S = 0.25
_MOST_START_FAILURES = 3
_STORAGE_PATIENCE_S = 180.0
_LEAST_FOR_A_RATE = 100


@dataclass
class _Worker:
    """What the driver knows of a worker. Of its attempts, the first is running."""

    moved_at: float
    ready_at: float | None = None
    attempts: deque[str] = field(default_factory=deque)
    progress: Progress | None = None

    @property
    def current(self) -> Progress | None:
        """The progress of the attempt that is running."""
        told = self.progress
        return told if told and self.attempts and told.attempt == self.attempts[0] else None


@dataclass(frozen=True, slots=True)
class RunState:
    """A look at a run under way. `resumed` was there before this driver began."""

    n_images: int
    resumed: Tally
    done: Tally
    elapsed_s: float
    n_workers: int
    n_starting: int
    busy_share: float
    n_shards_left: int


OnState = Callable[[RunState], object]
"""Told how a run goes."""


class Driver:
    """Works off the shards `todo` of a plan; `commits` are those that are done already.

    `complete` has what workers need of the inputs and the folder does not hold.
    """

    def __init__(
        self,
        storage: Storage,
        lease: Lease,
        plan: Plan,
        setup: WorkerSetup,
        commits: Mapping[int, Commit],
        todo: list[int],
        earlier_files: Mapping[int, str] | None = None,
        complete: CompleteInputs | None = None,
    ) -> None:
        self._complete = complete or CompleteInputs()
        self._storage, self._lease, self._plan = storage, lease, plan
        self._run, self._engine_config = setup.config.run, setup.config.engine
        self.schedule = Schedule(
            todo,
            self._run.max_attempts,
            self._run.max_kills_per_image,
            lost_attempts(storage, todo),
            earlier_files,
        )
        wanted = set(todo)
        self._resumed = Tally.total(c.tally for s, c in commits.items() if s not in wanted)
        self._n_images = self._resumed.images + sum(len(plan.shard_rows(s)) for s in todo)
        self._n_shards_left = len(todo)
        self._done: set[int] = set()
        self._committed = Tally()
        self._log = EventLog(storage)
        self._workers: dict[int, _Worker] = {}
        self._dead_attempts: list[str] = []
        self._dropped: list[tuple[int, str]] = []
        self._worker_s = self._busy_s = 0.0
        self._start_failures = 0
        self._storage_fails_since: float | None = None
        self._short_since: float | None = None
        self._stop_at: float | None = None
        self.stopped: str | None = None
        """Why the run ended before its shards did."""
        self._started_at = time.monotonic()

    def stop(self, reason: str) -> None:
        """End the run: running shards may finish for a while; asked again, drop them now."""
        drain_s = self._run.drain_s if self._stop_at is None else 0.0
        self.stopped = self.stopped or reason
        self._stop_at = time.monotonic() + drain_s

    def run(self, engine: Engine, watch: OnState) -> None:
        """Work until nothing is left, or the run is stopped; then close the engine.

        Raises StorageError where the run's folder keeps failing, InterruptedRunError where workers
        cannot be had, and what keeps the first from starting: CheckpointError, ConfigError.
        """
        inputs = PlannedInputs(self._storage)
        try:
            self._log.log("started", shards=self.schedule.n_waiting, plan=self._plan.fingerprint)
            while not self._is_over():
                self._assign(engine, inputs)
                for event in engine.wait(_WAIT_S):
                    self._handle(event, engine)
                self._replace_stalled(engine)
                self._check_strength(engine)
                watch(self.state())
        except AmgError as error:
            self.stopped = str(error)
            raise
        finally:
            engine.close()
            inputs.close()
            with suppress(StorageError):  # what matters is committed, or raised already
                self._tidy_up()
                self._log.log("ended", stopped=self.stopped, failed=self.schedule.failed)
                self._log.flush()

    def state(self) -> RunState:
        """A look at where things are."""
        moving = [worker.current for worker in self._workers.values() if worker.current]
        now = time.monotonic()
        ready = [w for w in self._workers.values() if w.ready_at is not None]
        worker_s = self._worker_s + sum(now - (w.ready_at or now) for w in ready)
        busy_s = self._busy_s + sum(progress.busy_s for progress in moving)
        return RunState(
            n_images=self._n_images,
            resumed=self._resumed,
            done=self._committed + Tally.total(progress.tally for progress in moving),
            elapsed_s=now - self._started_at,
            n_workers=len(ready),
            n_starting=len(self._workers) - len(ready),
            busy_share=busy_s / worker_s if worker_s else 0.0,
            n_shards_left=self._n_shards_left,
        )

    def _is_over(self) -> bool:
        if self.schedule.is_finished:
            return True
        if self._stop_at is None:
            return False
        idle = not any(worker.attempts for worker in self._workers.values())
        return idle or time.monotonic() >= self._stop_at

    def _assign(self, engine: Engine, inputs: PlannedInputs) -> None:
        """Start workers that are wanted, and give shards to those that are ready."""
        if self._stop_at is not None:
            self._drop_queued()
            return
        n_unfinished = self.schedule.n_waiting + self.schedule.n_running
        while len(self._workers) < min(engine.max_workers, n_unfinished):
            self._workers[engine.start()] = _Worker(moved_at=time.monotonic())
        ready = [(n, w) for n, w in self._workers.items() if w.ready_at is not None]
        for depth in (1, 2):  # a second shard in flight hides the driver's round trip
            for number, worker in ready:
                # At the end of the run a queued shard is better left to who is free first.
                scarce = depth == 2 and self.schedule.n_waiting <= len(ready)
                if len(worker.attempts) < depth and not scarce:
                    self._give(engine, inputs, number, worker)

    def _give(self, engine: Engine, inputs: PlannedInputs, number: int, worker: _Worker) -> None:
        shard = self.schedule.next_shard()
        if shard is None:
            return
        rows = self._plan.shard_rows(shard)
        task = self.schedule.begin(shard, self._complete.read(inputs, rows))
        if not worker.attempts:
            worker.moved_at = time.monotonic()
        worker.attempts.append(task.attempt)
        self._log.log("attempt", shard=shard, attempt=task.attempt, worker=number)
        engine.submit(number, task)

    def _drop_queued(self) -> None:
        """Take back shards that wait behind others. What a worker still does of one is lost."""
        for worker in self._workers.values():
            while len(worker.attempts) > 1:
                self._drop(worker.attempts.pop())

    def _drop(self, attempt: str) -> None:
        shard = self.schedule.shard_of(attempt)
        assert shard is not None
        self._dropped.append((shard, attempt))
        self.schedule.put_back(attempt)

    def _handle(self, event: Event, engine: Engine) -> None:
        worker = self._workers.get(event.worker)
        if worker is None:
            return  # a worker that was given up: whatever it still says comes too late
        worker.moved_at = time.monotonic()
        match event:
            case Ready():
                worker.ready_at = time.monotonic()
                self._start_failures = 0
                self._log.log("worker_ready", worker=event.worker)
            case Moved(progress=progress):
                worker.progress = progress
            case Finished(result=result):
                if result.attempt in worker.attempts:  # else it was taken back
                    worker.attempts.remove(result.attempt)
                    self._commit(result, event.worker)
            case Failed(attempt=None, error=error):
                if not any(w.ready_at for w in self._workers.values()):
                    raise error
                engine.kill(event.worker)
                self._lose(event.worker, str(error))
            case Failed(attempt=attempt, error=error):
                if attempt in worker.attempts:
                    worker.attempts.remove(attempt)
                    self._fail(attempt, error)
            case Died(reason=reason, blameless=blameless):
                self._lose(event.worker, reason, blameless=blameless)

    def _commit(self, result: ShardResult, number: int) -> None:
        try:
            commit_shard(self._storage, self._lease, self._plan, result)
        except ShardError as error:
            self._fail(result.attempt, error)
            return
        self.schedule.succeed(result.attempt)
        self._done.add(result.shard)
        self._n_shards_left -= 1
        self._committed += result.tally
        self._busy_s += result.busy_s
        self._storage_fails_since = None
        self._storage.delete([attempt_file(result.shard, result.attempt)])
        self._log.log(
            "committed",
            shard=result.shard,
            attempt=result.attempt,
            worker=number,
            images=result.tally.images,
            statuses=dict(result.tally.statuses),
        )
        self._stop_if_too_many_failed()

    def _stop_if_too_many_failed(self) -> None:
        tally = self._resumed + self._committed
        most = self._run.max_failure_rate * tally.images
        if tally.images >= _LEAST_FOR_A_RATE and tally.failed > most and self.stopped is None:
            self.stop(f"{tally.failed} of {tally.images} images failed: over max_failure_rate")

    def _fail(self, attempt: str, error: Exception) -> None:
        """A shard could not be done, and it is the storage's fault or a file's."""
        shard = self.schedule.shard_of(attempt)
        self._log.log("attempt_failed", shard=shard, attempt=attempt, error=str(error))
        logger.warning("shard %s: %s", shard, error)
        self.schedule.fail(attempt, str(error))
        now = time.monotonic()
        self._storage_fails_since = self._storage_fails_since or now
        # A disk of the run's own folder that is full is so for everyone; others have their own.
        lasting = isinstance(error, StorageError) and not error.passing
        if lasting and self._storage.local_folder is not None:
            raise error
        if now - self._storage_fails_since > _STORAGE_PATIENCE_S:
            raise StorageError(f"no shard could be written for {_STORAGE_PATIENCE_S:g} s: {error}")

    def _lose(self, number: int, reason: str, *, blameless: bool = False) -> None:
        """A worker is gone: its running shard learns from it, those behind are put back."""
        worker = self._workers.pop(number)
        self._worker_s += time.monotonic() - worker.ready_at if worker.ready_at else 0.0
        while len(worker.attempts) > 1:
            self._drop(worker.attempts.pop())
        running = worker.attempts[0] if worker.attempts else None
        shard = self.schedule.shard_of(running) if running else None
        self._log.log("worker_lost", worker=number, shard=shard, attempt=running, reason=reason)
        logger.warning("worker %d, shard %s: %s", number, shard, reason)
        if running is None or shard is None:
            if worker.ready_at is None and not blameless:
                self._count_start_failure(reason)
        elif blameless or self._stop_at is not None:  # signals for all may have reached it too
            self._drop(running)
        else:
            self._dead_attempts.append(running)
            mark_attempt(self._storage, shard, running, worker.current)
            self.schedule.lose(running, worker.current, reason)

    def _count_start_failure(self, reason: str) -> None:
        self._start_failures += 1
        anyone = any(worker.ready_at for worker in self._workers.values())
        if self._start_failures >= _MOST_START_FAILURES and not anyone:
            raise InterruptedRunError(f"workers cannot be started: {reason}")

    def _replace_stalled(self, engine: Engine) -> None:
        now = time.monotonic()
        for number, worker in list(self._workers.items()):
            if worker.attempts and now - worker.moved_at > self._run.stall_timeout_s:
                engine.kill(number)
                self._lose(number, f"no step for {self._run.stall_timeout_s:g} s")

    def _check_strength(self, engine: Engine) -> None:
        """Give up when too few workers can be had for too long."""
        now = time.monotonic()
        n_ready = sum(worker.ready_at is not None for worker in self._workers.values())
        wanted = min(self._engine_config.min_workers, engine.max_workers, len(self._workers))
        if n_ready >= wanted:
            self._short_since = None
            return
        self._short_since = self._short_since or now
        limit_s = self._engine_config.start_timeout_s
        if now - self._short_since > limit_s:
            raise InterruptedRunError(f"{n_ready} of {wanted} workers were there for {limit_s:g} s")

    def _tidy_up(self) -> None:
        """Remove what attempts have left: those that we broke off teach nothing."""
        for worker in self._workers.values():
            for attempt in list(worker.attempts):
                self._drop(attempt)
        self._storage.delete(attempt_file(shard, attempt) for shard, attempt in self._dropped)
        if self._done:
            forget_attempts(self._storage, self._done)
        sweep_partials(self._storage, [*(a for _, a in self._dropped), *self._dead_attempts])
