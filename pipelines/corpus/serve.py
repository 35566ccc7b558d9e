"""A worker's life, the same under every engine: start, then shards, and what it tells of them."""

import traceback
from collections.abc import Callable

from amg.errors import AmgError
from pipelines.corpus.messages import (
    Died,
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

_MOST_CHARS = 200


def begin(worker: int, setup: WorkerSetup, tell: Callable[[Event], None]) -> ShardWorker | None:
    """Start a worker. None if it cannot be started, which was told then."""

    def report(progress: Progress) -> None:
        tell(Moved(worker, progress))

    try:
        made = setup.make_worker(setup, report)
    except AmgError as error:
        tell(Failed(worker, None, error, traceback.format_exc()))
        return None
    except Exception as error:
        tell(_died(worker, error))
        return None
    tell(Ready(worker))
    return made


def attempt(worker: int, made: ShardWorker, task: ShardTask) -> Event:
    """One shard. After an error that is none of ours the worker ends: it is not to be trusted."""
    try:
        return Finished(worker, made.run(task))
    except AmgError as error:
        return Failed(worker, task.attempt, error, traceback.format_exc())
    except Exception as error:
        return _died(worker, error)


def _died(worker: int, error: Exception) -> Died:
    reason = f"{type(error).__name__}: {error}"
    return Died(worker, in_a_line(reason), traceback=traceback.format_exc())


def in_a_line(text: str) -> str:
    """The beginning of a text, for a log or a row."""
    return " ".join(text.split())[:_MOST_CHARS]


def serve(
    worker: int,
    setup: WorkerSetup,
    next_task: Callable[[], ShardTask],
    tell: Callable[[Event], None],
) -> None:
    """Do shard after shard, until an error that makes the worker useless."""
    made = begin(worker, setup, tell)
    while made is not None:
        event = attempt(worker, made, next_task())
        tell(event)
        if isinstance(event, Died):
            return
