"""The loop that gives shards to workers until all are committed, whatever dies on the way."""

import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from amg.errors import AmgError, RunError, ShardError, StorageError
from amg.io.run_folder import Commit, Plan, Tally, attempt_file
from amg.io.storage import Storage
from pipelines.commit import (
    EventLog,
    commit_shard,
    forget_attempts,
    lost_attempts,
    mark_attempt,
    sweep_partials,
)
from pipelines.lease import Lease
from pipelines.messages import (
    Died,
    Engine,
    Event,
    Failed,
    Finished,
    Moved,
    Progress,
    Ready,
    WorkerSetup,
)
from pipelines.plan import PlannedInputs
from pipelines.schedule import Schedule

logger = logging.getLogger(__name__)
_WAIT_S = 0.25
_MOST_START_FAILURES = 3
_MOST_STORAGE_FAILURES = 3
_LEAST_FOR_A_RATE = 100
DRAIN_S = 20.0
"""How long running shards may take to finish after a signal; then they are dropped."""


@dataclass
class _Worker:
    """What the driver knows of a worker. Of its attempts, the first is running."""

    started_at: float
    moved_at: float
    ready_at: float | None = None
    attempts: deque[str] = field(default_factory=deque)
    progress: Progress | None = None


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


Watch = Callable[[RunState], None]


class Driver:
    """Works off the shards `todo` of a plan; `commits` are those that are done already."""

    def __init__(
        self,
        storage: Storage,
        lease: Lease,
        plan: Plan,
        setup: WorkerSetup,
        commits: dict[int, Commit],
        todo: list[int],
        earlier_files: Mapping[int, str] | None = None,
    ) -> None:
        self._storage, self._lease, self._plan = storage, lease, plan
        self._run, self._engine_config = setup.config.run, setup.config.engine
        self.commits = commits
        self.schedule = Schedule(
            todo,
            self._run.max_attempts,
            self._run.max_kills_per_image,
            lost_attempts(storage, todo),
            earlier_files,
        )
        self._todo = set(todo)
        self._resumed = Tally.total(c.tally for s, c in commits.items() if s not in self._todo)
        self._committed = Tally()
        self._inputs = PlannedInputs(storage)
        self._log = EventLog(storage, uuid.uuid4().hex[:8])
        self._workers: dict[int, _Worker] = {}
        self._dead_attempts: list[str] = []
        self._worker_s = self._busy_s = 0.0
        self._start_failures = self._storage_failures = 0
        self._stop_at: float | None = None
        self.stopped: str | None = None
        """Why the run ended before its shards did."""
        self._started_at = time.monotonic()

    def stop(self, reason: str, drain_s: float = DRAIN_S) -> None:
        """End the run: running shards may finish for `drain_s`; asked again, drop them now."""
        asked_before = self._stop_at is not None
        self.stopped = self.stopped or reason
        self._stop_at = time.monotonic() + (0.0 if asked_before else drain_s)

    def run(self, engine: Engine, watch: Watch) -> None:
        """Work until nothing is left, or the run is stopped; then close the engine.

        Raises StorageError where the run's folder keeps failing, RunError where workers cannot be
        had, and what keeps a worker from starting: CheckpointError, ConfigError.
        """
        self._log.log("started", shards=self.schedule.n_waiting, plan=self._plan.fingerprint)
        try:
            while not self._is_over():
                self._assign(engine)
                for event in engine.wait(_WAIT_S):
                    self._handle(event)
                self._replace_stalled(engine)
                watch(self.state())
        except AmgError as error:
            self.stopped = str(error)
            raise
        finally:
            engine.close()
            self._inputs.close()
            with suppress(StorageError):  # what matters is committed, or raised already
                self._tidy_up()
                self._log.log("ended", stopped=self.stopped, failed=self.schedule.failed)
                self._log.flush()

    def state(self) -> RunState:
        """A look at where things are."""
        moving = [w.progress for w in self._workers.values() if w.progress]
        now = time.monotonic()
        ready = [w for w in self._workers.values() if w.ready_at is not None]
        worker_s = self._worker_s + sum(now - (w.ready_at or now) for w in ready)
        busy_s = self._busy_s + sum(progress.busy_s for progress in moving)
        return RunState(
            n_images=sum(len(self._plan.shard_rows(s)) for s in self._todo) + self._resumed.images,
            resumed=self._resumed,
            done=self._committed + Tally.total(progress.tally for progress in moving),
            elapsed_s=now - self._started_at,
            n_workers=len(ready),
            n_starting=len(self._workers) - len(ready),
            busy_share=busy_s / worker_s if worker_s else 0.0,
            n_shards_left=len(self._todo) - sum(s in self.commits for s in self._todo),
        )

    def _is_over(self) -> bool:
        if self.schedule.is_finished:
            return True
        if self._stop_at is None:
            return False
        idle = not any(worker.attempts for worker in self._workers.values())
        return idle or time.monotonic() >= self._stop_at

    def _assign(self, engine: Engine) -> None:
        """Start workers that are wanted, and give shards to those that are ready."""
        if self._stop_at is not None:
            self._drop_queued()
            return
        n_unfinished = self.schedule.n_waiting + self.schedule.n_running
        while len(self._workers) < min(engine.max_workers, n_unfinished):
            now = time.monotonic()
            self._workers[engine.start()] = _Worker(started_at=now, moved_at=now)
        ready = [(n, w) for n, w in self._workers.items() if w.ready_at is not None]
        for depth in (1, 2):  # a second shard in flight hides the driver's round trip
            for number, worker in ready:
                # At the end of the run a queued shard is better left to who is free first.
                scarce = depth == 2 and self.schedule.n_waiting <= len(ready)
                if len(worker.attempts) < depth and not scarce:
                    self._give(engine, number, worker)

    def _give(self, engine: Engine, number: int, worker: _Worker) -> None:
        shard = self.schedule.next_shard()
        if shard is None:
            return
        task = self.schedule.begin(shard, self._inputs.read(self._plan.shard_rows(shard)))
        if not worker.attempts:
            worker.moved_at = time.monotonic()
        worker.attempts.append(task.attempt)
        self._log.log("attempt", shard=shard, attempt=task.attempt, worker=number)
        engine.submit(number, task)

    def _handle(self, event: Event) -> None:
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
                if progress.attempt in worker.attempts:
                    worker.progress = progress
            case Finished(result=result):
                if result.attempt in worker.attempts:  # else it was taken back
                    self._leave_attempt(worker, result.attempt)
                    self._commit(event)
            case Failed(attempt=None, error=error):
                raise error
            case Failed(attempt=attempt, error=error):
                if attempt in worker.attempts:
                    self._leave_attempt(worker, attempt)
                    self._fail(attempt, error)
            case Died(reason=reason, blameless=blameless):
                self._lose(event.worker, reason, blameless=blameless)

    def _leave_attempt(self, worker: _Worker, attempt: str) -> None:
        worker.attempts.remove(attempt)
        self._busy_s += worker.progress.busy_s if worker.progress else 0.0
        worker.progress = None

    def _commit(self, event: Finished) -> None:
        result = event.result
        try:
            commit = commit_shard(self._storage, self._lease, self._plan, result)
        except ShardError as error:
            self._fail(result.attempt, error)
            return
        self.schedule.succeed(result.attempt)
        self.commits[result.shard] = commit
        self._committed += result.tally
        self._storage_failures = 0
        self._log.log(
            "committed",
            shard=result.shard,
            attempt=result.attempt,
            worker=event.worker,
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
        if isinstance(error, StorageError) and not error.passing:
            raise error
        self._storage_failures += 1
        if self._storage_failures >= _MOST_STORAGE_FAILURES:
            raise StorageError(f"{self._storage_failures} shards in a row failed: {error}")

    def _lose(self, number: int, reason: str, *, blameless: bool = False) -> None:
        """A worker is gone: its running shard learns from it, those behind are put back."""
        worker = self._workers.pop(number)
        self._worker_s += time.monotonic() - worker.ready_at if worker.ready_at else 0.0
        progress = worker.progress
        for attempt in list(worker.attempts)[:0:-1]:
            self.schedule.put_back(attempt)
        running = worker.attempts[0] if worker.attempts else None
        shard = self.schedule.shard_of(running) if running else None
        self._log.log("worker_lost", worker=number, shard=shard, attempt=running, reason=reason)
        logger.warning("worker %d, shard %s: %s", number, shard, reason)
        if running is None or shard is None:
            self._count_start_failure(worker, reason)
            return
        if blameless:
            self.schedule.put_back(running)
            return
        if progress is not None and progress.attempt != running:
            progress = None  # of the shard before
        self._dead_attempts.append(running)
        mark_attempt(self._storage, shard, running, progress)
        self.schedule.lose(running, progress, reason)

    def _count_start_failure(self, worker: _Worker, reason: str) -> None:
        if worker.ready_at is None:
            self._start_failures += 1
            if self._start_failures >= _MOST_START_FAILURES:
                raise RunError(f"{self._start_failures} workers could not be started: {reason}")

    def _replace_stalled(self, engine: Engine) -> None:
        now = time.monotonic()
        for number, worker in list(self._workers.items()):
            if worker.attempts and now - worker.moved_at > self._run.stall_timeout_s:
                engine.kill(number)
                self._lose(number, f"no step for {self._run.stall_timeout_s:g} s")
        n_ready = sum(worker.ready_at is not None for worker in self._workers.values())
        starting = [w.started_at for w in self._workers.values() if w.ready_at is None]
        limit_s = self._engine_config.start_timeout_s
        wanted = min(self._engine_config.min_workers, engine.max_workers, len(self._workers))
        if n_ready < wanted and starting and now - min(starting) > limit_s:
            raise RunError(f"{n_ready} of {wanted} workers could be started in {limit_s:g} s")

    def _drop_queued(self) -> None:
        """Take back shards that have not been begun; their workers skip them when they end."""
        for worker in self._workers.values():
            while len(worker.attempts) > 1:
                self.schedule.put_back(worker.attempts.pop())

    def _tidy_up(self) -> None:
        """Remove what attempts have left: those that we broke off teach nothing."""
        broken_off = [a for worker in self._workers.values() for a in worker.attempts]
        self._storage.delete(
            attempt_file(shard, attempt)
            for attempt in broken_off
            if (shard := self.schedule.shard_of(attempt)) is not None
        )
        forget_attempts(self._storage, set(self.commits) & self._todo)
        sweep_partials(self._storage, [*broken_off, *self._dead_attempts])
