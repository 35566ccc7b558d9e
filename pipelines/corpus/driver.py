"""The loop that gives shards to workers until all are committed, whatever dies on the way."""

import logging
import time
from collections import deque
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field

from amg.errors import AmgError, InterruptedRunError, ShardError, StorageError
from amg.inputs.sources import ImageSource
from amg.runs.events import EventLog
from amg.runs.folder import Commit, Plan, Tally, attempt_file
from amg.runs.planned import PlannedInputs
from amg.runs.spool import CompleteInputs
from amg.storage.patient import PatientStorage
from pipelines.corpus.commit import (
    forget_attempts,
    lost_attempts,
    mark_attempt,
    sweep_partials,
)
from pipelines.corpus.failures import name_of, report_failure, report_loss
from pipelines.corpus.lease import Lease
from pipelines.corpus.messages import (
    Died,
    Engine,
    Event,
    Failed,
    Finished,
    Moved,
    Node,
    Placed,
    Progress,
    Ready,
    ShardResult,
    WorkerSetup,
)
from pipelines.corpus.outbox import Outbox
from pipelines.corpus.schedule import Schedule
from pipelines.corpus.staffing import Staffing
from pipelines.corpus.state import OnState, RunState
from pipelines.corpus.witness import InputsGoneError, RunInputs

logger = logging.getLogger(__name__)
_WAIT_S = 0.25
_LEAST_FOR_A_RATE = 1000


@dataclass
class _Worker:
    """What the driver knows of a worker. Of its attempts, the first is running."""

    moved_at: float
    started_at: float
    node: Node | None = None
    ready_at: float | None = None
    attempts: deque[str] = field(default_factory=deque)
    progress: Progress | None = None

    @property
    def current(self) -> Progress | None:
        """The progress of the attempt that is running."""
        told = self.progress
        return told if told and self.attempts and told.attempt == self.attempts[0] else None


class Driver:
    """Works off the shards `todo` of a plan; `commits` are those that are done already.

    `complete` has what workers need of the inputs and the folder does not hold.
    """

    def __init__(
        self,
        storage: PatientStorage,
        lease: Lease,
        plan: Plan,
        setup: WorkerSetup,
        commits: Mapping[int, Commit],
        todo: list[int],
        earlier_files: Mapping[int, str] | None = None,
        complete: CompleteInputs | None = None,
    ) -> None:
        self._complete = complete or CompleteInputs()
        self._out, self._lease, self._plan = storage, lease, plan
        self._storage = storage.once  # the loop has patience of its own, and other things to do
        self._run = setup.config.run
        self._staffing = Staffing(setup.config.engine)
        self._avoided: frozenset[Node] = frozenset()
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
        self._log = EventLog(self._storage)
        self._outbox = Outbox(self._storage, lease, plan, self._log, replaced=earlier_files or {})
        self._inputs = RunInputs(setup.witness, self._run.allow)
        self._workers: dict[int, _Worker] = {}
        self._dead_attempts: list[str] = []
        self._dropped: list[tuple[int, str]] = []
        self._worker_s = self._busy_s = 0.0
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

        Raises StorageError where the run's folder keeps failing, BlockedRunError where no worker
        can be started or too few can be had for too long, and what keeps the first from starting on
        the only machine: CheckpointError, ConfigError.
        """
        try:
            with closing(PlannedInputs(self._out)) as inputs:
                self._work(engine, inputs, watch)
        except AmgError as error:
            self.stopped = str(error)
            raise
        finally:
            engine.close()
            self._tidy_up()
            self._log.log("ended", stopped=self.stopped, failed=self.schedule.failed)
            with suppress(StorageError):  # what matters is committed, or raised already
                self._log.flush()

    def _work(self, engine: Engine, inputs: PlannedInputs, watch: OnState) -> None:
        self._log.log("started", shards=self.schedule.n_waiting, plan=self._plan.fingerprint)
        while not self._is_over():
            self._assign(engine, inputs)
            for event in engine.wait(_WAIT_S):
                self._handle(event, engine)
            self._commit()
            self._replace_stalled(engine)
            self._check_staff(engine)
            watch(self.state())

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
        return (idle and self._outbox.is_empty) or time.monotonic() >= self._stop_at

    def _assign(self, engine: Engine, inputs: PlannedInputs) -> None:
        """Start workers that are wanted, and give shards to those that are ready."""
        if self._stop_at is not None:
            self._drop_queued()
            return
        self._start_workers(engine)
        if not (self._outbox.is_open and self._inputs.are_there()):
            return
        ready = [(n, w) for n, w in self._workers.items() if w.ready_at is not None]
        for depth in (1, 2):  # a second shard in flight hides the driver's round trip
            for number, worker in ready:
                # At the end of the run a queued shard is better left to who is free first.
                scarce = depth == 2 and self.schedule.n_waiting <= len(ready)
                if len(worker.attempts) < depth and not scarce:
                    self._give(engine, inputs, number, worker)

    def _n_wanted(self, engine: Engine) -> int:
        return min(engine.max_workers, self.schedule.n_waiting + self.schedule.n_running)

    def _start_workers(self, engine: Engine) -> None:
        now = time.monotonic()
        avoided = self._staffing.avoided(now)
        if avoided != self._avoided:  # those that wait for a node were asked for with other wishes
            for number in [n for n, worker in self._workers.items() if worker.node is None]:
                engine.kill(number)
                del self._workers[number]
        self._avoided = avoided
        if self._staffing.must_wait(now):
            return
        while len(self._workers) < self._n_wanted(engine):
            number = engine.start(avoided)
            if number is None:
                return
            self._workers[number] = _Worker(moved_at=now, started_at=now)

    def _give(self, engine: Engine, inputs: PlannedInputs, number: int, worker: _Worker) -> None:
        shard = self.schedule.next_shard()
        if shard is None:
            return
        sources: list[ImageSource] = []
        rows = self._plan.shard_rows(shard)
        if not self._outbox.try_reading(lambda: sources.extend(self._complete.read(inputs, rows))):
            self.schedule.return_shard(shard)
            return
        task = self.schedule.begin(shard, sources)
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
            case Placed(node=node):
                worker.node = node
            case Ready():
                worker.ready_at = time.monotonic()
                self._staffing.succeed(worker.node)
                self._log.log("worker_ready", worker=event.worker, node=name_of(worker.node))
            case Moved(progress=progress):
                worker.progress = progress
            case Finished(result=result):
                if result.attempt in worker.attempts:  # else it was taken back
                    worker.attempts.remove(result.attempt)
                    self._outbox.put(event.worker, result)
            case Failed(attempt=None, error=error):
                if self._staffing.ends_the_run(error, engine.nodes()):
                    raise error
                engine.kill(event.worker)
                passing = isinstance(error, StorageError) and error.passing
                died = Died(event.worker, str(error), traceback=event.traceback)
                self._lose(died, passing=passing)
            case Failed(attempt=attempt):
                if attempt in worker.attempts:
                    worker.attempts.remove(attempt)
                    self._give_up(event, attempt, engine)
            case Died():
                self._lose(event)

    def _commit(self) -> None:
        """Commit what workers have finished, as far as OUT allows."""
        for worker, result, outcome in self._outbox.commit():
            if isinstance(outcome, ShardError):
                self._fail(result.attempt, outcome)
            else:
                self._count(worker, result, outcome)

    def _count(self, number: int, result: ShardResult, commit: Commit) -> None:
        """A shard is committed, by us or by another driver before us."""
        self.schedule.succeed(result.attempt)
        self._done.add(result.shard)
        self._n_shards_left -= 1
        self._committed += commit.tally
        self._busy_s += result.busy_s
        if commit.tally.failed < commit.tally.images:
            self._inputs.worked()
        self._outbox.delete([attempt_file(result.shard, result.attempt)])
        self._log.log(
            "committed",
            shard=result.shard,
            attempt=commit.attempt,
            worker=number,
            images=commit.tally.images,
            statuses=dict(commit.tally.statuses),
        )
        self._stop_if_too_many_failed()

    def _stop_if_too_many_failed(self) -> None:
        tally = self._committed  # what was there before was looked at before
        rate = self._run.max_failure_rate
        is_over = tally.images >= _LEAST_FOR_A_RATE and tally.failed > rate * tally.images
        if is_over and self.stopped is None:
            self.stop(f"{tally.failed} of {tally.images} failed: over max_failure_rate={rate:g}")

    def _give_up(self, event: Failed, attempt: str, engine: Engine) -> None:
        """A worker lives, and has not done its shard."""
        error = event.error
        if isinstance(error, InterruptedRunError) and not self._inputs.has_witness():
            self.schedule.put_back(attempt)
            self.stop(str(error))  # it would be so for all that follow
            return
        is_unread = isinstance(error, InputsGoneError | InterruptedRunError)
        if not self._fail(attempt, error, event.traceback) and is_unread:
            # We can read what it cannot: its machine is at fault, where a new one is looked at.
            engine.kill(event.worker)
            self._lose(Died(event.worker, str(error), blameless=True))

    def _fail(self, attempt: str, error: Exception, traceback: str | None = None) -> bool:
        """A shard could not be done by a storage's or file's fault; whether it is so everywhere."""
        shard = self.schedule.shard_of(attempt)
        report_failure(self._storage, self._log, shard, attempt, error, traceback)
        # A disk of the run's own folder that is full is so for everyone; others have their own.
        lasts = type(error) is StorageError and not error.passing
        if lasts and self._storage.local_folder is not None:
            raise error
        is_everybodys = self._is_everybodys(error)
        if is_everybodys:
            self.schedule.put_back(attempt)
        else:
            self.schedule.fail(attempt, str(error))
        if shard is not None:  # it ended in order: the next driver need not wonder how
            self._outbox.delete([attempt_file(shard, attempt)])
        return is_everybodys

    def _is_everybodys(self, error: Exception) -> bool:
        """Whether we meet the same failure here, which is waited out. Raises if it lasts."""
        if isinstance(error, InputsGoneError):
            return self._inputs.are_gone(error)
        return isinstance(error, StorageError) and not self._outbox.look()

    def _lose(self, died: Died, *, passing: bool = False) -> None:
        """A worker is gone: its running shard learns, those behind are put back; see `Staffing`."""
        worker = self._workers.pop(died.worker)
        self._worker_s += time.monotonic() - worker.ready_at if worker.ready_at else 0.0
        while len(worker.attempts) > 1:
            self._drop(worker.attempts.pop())
        running = worker.attempts[0] if worker.attempts else None
        shard = self.schedule.shard_of(running) if running else None
        report_loss(self._storage, self._log, died, worker.node, shard, running)
        if worker.ready_at is not None:
            self._staffing.free(worker.node)
        elif not died.blameless:
            self._count_failed_start(worker, died.reason, passing=passing)
        if running is None or shard is None:
            return
        if died.blameless or self._stop_at is not None:  # signals for all may have reached it too
            self._drop(running)
        else:
            self._dead_attempts.append(running)
            with suppress(StorageError):  # we know it ourselves; only a next driver would miss it
                mark_attempt(self._storage, shard, running, worker.current)
            self.schedule.lose(running, worker.current, died.reason)

    def _count_failed_start(self, worker: _Worker, reason: str, *, passing: bool) -> None:
        node, now = worker.node, time.monotonic()
        if self._staffing.fail(node, reason, worker.started_at, now, passing=passing):
            self._log.log("node_left_out", node=name_of(node), reason=reason)
            logger.warning("no more workers are started on %s: %s", name_of(node), reason)

    def _replace_stalled(self, engine: Engine) -> None:
        now = time.monotonic()
        for number, worker in list(self._workers.items()):
            if worker.attempts and now - worker.moved_at > self._run.stall_timeout_s:
                engine.kill(number)
                self._lose(Died(number, f"no step for {self._run.stall_timeout_s:g} s"))

    def _check_staff(self, engine: Engine) -> None:
        """Give up when no worker can be had, or too few for too long."""
        if self._stop_at is not None:
            return
        now = time.monotonic()
        n_ready = sum(worker.ready_at is not None for worker in self._workers.values())
        self._staffing.check_strength(n_ready, self._n_wanted(engine), now)
        if not any(worker.node for worker in self._workers.values()):
            self._staffing.check_places(engine.nodes, now)

    def _tidy_up(self) -> None:
        """Remove what attempts have left: those that we broke off teach nothing."""
        for worker in self._workers.values():
            for attempt in list(worker.attempts):
                self._drop(attempt)
        self._outbox.delete(attempt_file(shard, attempt) for shard, attempt in self._dropped)
        with suppress(StorageError):  # what stays is in nobody's way
            if self._done:
                forget_attempts(self._storage, self._done)
            sweep_partials(self._storage, [*(a for _, a in self._dropped), *self._dead_attempts])
