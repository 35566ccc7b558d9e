"""What is kept of a worker's end, for people to read: its traceback, in the run's folder."""

import logging
import uuid

from amg.errors import StorageError
from amg.runs.folder import failure_file
from amg.storage.stores import Storage

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
