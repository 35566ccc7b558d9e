"""Finished shards on their way to their commits, through times in which OUT fails."""

from collections import deque
from collections.abc import Callable, Container, Iterable
from contextlib import suppress
from typing import NamedTuple

from amg.errors import ShardError, StorageError
from amg.runs.events import EventLog
from amg.runs.folder import Commit, Plan
from amg.storage.stores import Storage
from pipelines.corpus.commit import commit_shard
from pipelines.corpus.lease import Lease
from pipelines.corpus.messages import ShardResult
from pipelines.corpus.patience import Patience

_PATIENCE_S = 300.0


class Committed(NamedTuple):
    """What became of a finished shard: its commit, or why it cannot have one."""

    worker: int
    result: ShardResult
    outcome: Commit | ShardError


class Outbox:
    """Commits what workers have finished, in order; keeps it while OUT fails, for minutes.

    replaced: shards that have a commit already, which is to be written over.
    """

    def __init__(
        self,
        storage: Storage,
        lease: Lease,
        plan: Plan,
        log: EventLog,
        replaced: Container[int] = (),
    ) -> None:
        self._storage, self._lease, self._plan = storage, lease, plan
        self._log, self._replaced = log, replaced
        self._patience = Patience(_PATIENCE_S)
        self._reading = Patience(_PATIENCE_S)  # what can be written may still not be read
        self._waiting: deque[tuple[int, ShardResult]] = deque()

    @property
    def is_empty(self) -> bool:
        """Whether no shard waits for its commit."""
        return not self._waiting

    @property
    def is_open(self) -> bool:
        """Whether it makes sense to give out more work: OUT is ours, and takes what is written."""
        return not self._patience.is_tried and self._reading.is_due and self._lease.is_held

    def put(self, worker: int, result: ShardResult) -> None:
        """A worker has published a shard."""
        self._waiting.append((worker, result))

    def commit(self) -> list[Committed]:
        """Commit what waits, if it is time for it.

        Raises StorageError where OUT fails for too long or for good, InterruptedRunError where
        another driver has taken the run over.
        """
        done: list[Committed] = []
        if not self._patience.is_due:
            return done
        self._lease.check()
        if self._patience.is_tried and not self._waiting:
            self.look()
        while self._waiting and self._patience.is_due:
            worker, result = self._waiting[0]
            outcome: list[Commit | ShardError] = []
            if self._patience.attempt(lambda r=result, o=outcome: o.append(self._commit(r))):
                self._waiting.popleft()
                done.append(Committed(worker, result, *outcome))
        return done

    def _commit(self, result: ShardResult) -> Commit | ShardError:
        if not self._lease.is_held:
            raise StorageError("the lease on the run could not be renewed")
        replaces = result.shard in self._replaced
        try:
            return commit_shard(self._storage, self._plan, result, replaces=replaces)
        except ShardError as error:
            return error

    def look(self) -> bool:
        """Whether OUT can be written to now: by writing the log. Raises as `commit`."""
        return self._patience.attempt(self._log.flush)

    def try_reading(self, operation: Callable[[], object]) -> bool:
        """Whether something of OUT could be read. Raises as `commit`."""
        return self._reading.attempt(operation)

    def delete(self, names: Iterable[str]) -> None:
        """Delete files that are in nobody's way: what cannot be deleted stays, and gc finds it."""
        with suppress(StorageError):
            self._storage.delete(names)
