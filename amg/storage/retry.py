"""Passing storage errors are waited out."""

import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from amg.errors import StorageError

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

WAITS_S = (2.0, 8.0, 30.0)
"""The longest waits between tries of one operation: beside a shard they are short."""
INPUT_WAITS_S = (2.0, 8.0, 30.0, 60.0)
"""Of an image that is to be read: what is given up here is a row without masks."""
_INPUT_PATIENCE_S = 100.0
"""No try of an input begins later than this: one that waits for an answer may take as long."""


def with_backoff(
    operation: Callable[[], Result],
    waits_s: Sequence[float] | None = None,
    patience_s: float = float("inf"),
) -> Result:
    """Do it, again after each wait while the storage fails in a way that may pass.

    waits_s: None for `WAITS_S`. A wait is as long as that at most, and by chance shorter: many that
    failed together do not come back together ("Exponential Backoff And Jitter", AWS Architecture
    Blog, 2015: full jitter). patience_s: after the first try. Raises the last StorageError.
    """
    give_up_at = time.monotonic() + patience_s
    for longest_s in WAITS_S if waits_s is None else waits_s:
        try:
            return operation()
        except StorageError as error:
            wait_s = random.uniform(0, longest_s)  # noqa: S311 - no secret
            if not error.passing or time.monotonic() + wait_s > give_up_at:
                raise
            logger.warning("%s; again in %.1f s", error, wait_s)
            time.sleep(wait_s)
    return operation()


def read_with_backoff(operation: Callable[[], Result]) -> Result:
    """`with_backoff` for reading an input."""
    return with_backoff(operation, INPUT_WAITS_S, _INPUT_PATIENCE_S)
