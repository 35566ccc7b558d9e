"""How long a storage that fails is waited for: its own failures count, not the lack of news."""

import logging
import random
import time
from collections.abc import Callable

from amg.errors import StorageError

logger = logging.getLogger(__name__)
_LOOK_AGAIN_S = (2.0, 20.0)
"""Between looks at what fails: the first, the longest. Each is twice the last, by chance less."""


class Patience:
    """Watches one storage: it fails from the first failure on, until it is seen to work again.

    What is only silent does not fail: a shard may take many minutes.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._error: Exception | None = None
        self._failing_since = 0.0
        self._longest_s = 0.0
        self._look_at = 0.0

    @property
    def is_tried(self) -> bool:
        """Whether the storage fails, as far as is known."""
        return self._error is not None

    @property
    def is_due(self) -> bool:
        """Whether it is time to look again at what fails; always where nothing fails."""
        return time.monotonic() >= self._look_at

    def worked(self) -> None:
        """The storage did what it was asked."""
        self._error = None
        self._look_at = self._longest_s = 0.0

    def failed(self, error: Exception) -> None:
        """The storage failed. Raises StorageError if it has done nothing else for too long."""
        now = time.monotonic()
        logger.warning("waited for: %s", error)
        if self._error is None:
            self._failing_since = now
        self._error = error
        first_s, most_s = _LOOK_AGAIN_S
        self._longest_s = min(most_s, max(first_s, 2 * self._longest_s))
        self._look_at = now + random.uniform(0.5, 1) * self._longest_s  # noqa: S311 - no secret
        if now - self._failing_since > self._limit_s:
            raise StorageError(f"for {self._limit_s:g} s and more: {error}") from error

    def attempt(self, operation: Callable[[], object]) -> bool:
        """Whether it could be done. Raises what does not pass, and as `failed`."""
        try:
            operation()
        except StorageError as error:
            if not error.passing:
                raise
            self.failed(error)
            return False
        self.worked()
        return True
