"""A worker's life, the same under every engine: start, then shards, and what it tells of them."""

from collections.abc import Callable

from amg.errors import AmgError
from pipelines.corpus.messages import (
    Event,
    Failed,
    Finished,
    Moved,
    Progress,
    Ready,
    ShardTask,
    ShardWorker,
    WorkerSetup,
)


def begin(worker: int, setup: WorkerSetup, tell: Callable[[Event], None]) -> ShardWorker | None:
    """Start a worker. None if it cannot be started for a reason that people can mend."""

    def report(progress: Progress) -> None:
        tell(Moved(worker, progress))

    try:
        made = setup.make_worker(setup, report)
    except AmgError as error:
        tell(Failed(worker, None, error))
        return None
    tell(Ready(worker))
    return made


def attempt(worker: int, made: ShardWorker, task: ShardTask) -> Event:
    """One shard. Errors that are none of ours pass: what raises them is not to be trusted."""
    try:
        return Finished(worker, made.run(task))
    except AmgError as error:
        return Failed(worker, task.attempt, error)


def serve(
    worker: int,
    setup: WorkerSetup,
    next_task: Callable[[], ShardTask],
    tell: Callable[[Event], None],
) -> None:
    """Do shard after shard, for ever."""
    made = begin(worker, setup, tell)
    while made is not None:
        tell(attempt(worker, made, next_task()))
