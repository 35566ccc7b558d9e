"""Passing storage errors are waited out."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from amg.errors import StorageError

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

WAITS_S = (1.0, 4.0, 15.0)
"""Between tries of one operation: long enough for a throttled store, short beside a shard."""


def with_backoff(operation: Callable[[], Result]) -> Result:
    """Do it, again after each wait while the storage fails in a way that may pass.

    Raises the last StorageError.
    """
    for wait_s in WAITS_S:
        try:
            return operation()
        except StorageError as error:
            if not error.passing:
                raise
            logger.warning("%s; again in %.0f s", error, wait_s)
            time.sleep(wait_s)
    return operation()
