"""What is kept of a worker's end, for people to read: a line in the log, and its traceback."""

import logging
import uuid

from amg.errors import StorageError
from amg.runs.events import EventLog
from amg.runs.folder import failure_file
from amg.storage.stores import Storage
from pipelines.corpus.messages import Died, Node

logger = logging.getLogger(__name__)


def keep_traceback(storage: Storage, shard: int | None, attempt: str | None, text: str) -> str:
    """Store a traceback of an attempt, or of a start (None); give the file's name.

    The log has it where it cannot be stored: a run does not end for want of an explanation.
    """
    name = failure_file(shard, attempt or uuid.uuid4().hex[:8])
    try:
        storage.write(name, text.encode(errors="backslashreplace"))
    except StorageError as error:
        logger.warning("%s cannot be written: %s\n%s", name, error, text)
    return name


def report_loss(
    storage: Storage,
    log: EventLog,
    died: Died,
    node: Node | None,
    shard: int | None,
    attempt: str | None,
) -> None:
    """Write down that a worker is gone, in a shard's attempt or (None) in none."""
    told = {"worker": died.worker, "node": name_of(node), "shard": shard, "attempt": attempt}
    if died.traceback is not None:
        told["traceback"] = keep_traceback(storage, shard, attempt, died.traceback)
    log.log("worker_lost", **told, reason=died.reason)
    at = "" if shard is None else f", shard {shard}"
    logger.warning("worker %d on %s%s: %s", died.worker, name_of(node), at, died.reason)


def report_failure(
    storage: Storage,
    log: EventLog,
    shard: int | None,
    attempt: str,
    error: Exception,
    traceback: str | None,
) -> None:
    """Write down that a worker could not do a shard. What a storage says needs no traceback."""
    told = {"shard": shard, "attempt": attempt, "error": str(error)}
    if traceback is not None and not isinstance(error, StorageError):
        told["traceback"] = keep_traceback(storage, shard, attempt, traceback)
    log.log("attempt_failed", **told)
    logger.warning("shard %s: %s", shard, error)


def name_of(node: Node | None) -> str:
    """A node in a log."""
    return "an unknown node" if node is None else str(node)
