"""A worker's warnings, on their way to the driver's log."""

import logging
import time
from collections.abc import Callable

from pipelines.corpus.serve import in_a_line

_MOST, _EVERY_S = 20, 60.0


class ForwardWarnings(logging.Handler):
    """Sends what a process logs, from warnings on, so many a minute: a thousand say no more."""

    def __init__(self, send: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._send = send
        self._since = float("-inf")
        self._sent = self._kept_back = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record, or count it."""
        if record.name.split(".")[0] == "ray":  # what sends may warn in its turn
            return
        now = time.monotonic()
        if now - self._since > _EVERY_S:
            self._since, self._sent = now, 0
        if self._sent >= _MOST:
            self._kept_back += 1
            return
        more = f" (and {self._kept_back} warnings before it)" if self._kept_back else ""
        self._sent, self._kept_back = self._sent + 1, 0
        try:
            self._send(f"{record.name}: {in_a_line(record.getMessage())}{more}")
        except Exception:
            self.handleError(record)
