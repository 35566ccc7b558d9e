"""A run's log of events: what its driver writes down, and what that says of its time."""

import json
import logging
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from amg.errors import StorageError
from amg.runs.folder import EVENTS
from amg.storage.stores import Storage, read_all

logger = logging.getLogger(__name__)
_PARTS = "events"
_KINDS = {"time": int | float, "session": str, "event": str}


class EventLog:
    """What happened, a JSON object a line: events.jsonl, on object stores parts under events/.

    A log that cannot be written waits, and ends nothing.
    """

    _FLUSH_S = 15.0

    def __init__(self, storage: Storage) -> None:
        self._storage, self._session = storage, uuid.uuid4().hex[:8]
        self._lines: list[str] = []
        self._n_parts = 0
        self._flush_at = 0.0 if storage.local_folder is not None else self._next_flush()

    def log(self, event: str, **values: object) -> None:
        """Add an event."""
        now = round(time.time(), 3)
        line = json.dumps({"time": now, "session": self._session, "event": event, **values})
        logger.info("%s", line)
        self._lines.append(line)
        if time.monotonic() < self._flush_at:
            return
        try:
            self.flush()
        except StorageError as error:
            logger.warning("the log of the run waits: %s", error)
            self._flush_at = self._next_flush()

    def flush(self) -> None:
        """Make all events so far durable.

        Raises StorageError, and keeps them.
        """
        if not self._lines:
            return
        if not self._storage.append(EVENTS, "\n".join(self._lines)):
            name = f"{_PARTS}/{self._session}-{self._n_parts:05d}.jsonl"
            self._storage.write(name, "".join(f"{line}\n" for line in self._lines).encode())
            self._n_parts += 1
            self._flush_at = self._next_flush()
        self._lines = []

    def _next_flush(self) -> float:
        return time.monotonic() + self._FLUSH_S


@dataclass(frozen=True, slots=True)
class RunTimes:
    """When a run was worked at, in seconds since 1970 (None: the log does not say).

    `worked_s` is the time in which at least one driver was at work, its workers' start included;
    `images` were committed in it. Work that was done again counts again.
    """

    began: float | None = None
    ended: float | None = None
    worked_s: float = 0.0
    images: int = 0
    workers: int = 0

    @property
    def images_per_s(self) -> float | None:
        """Images a second, None if the log has none."""
        return self.images / self.worked_s if self.images and self.worked_s > 0 else None


def read_events(storage: Storage) -> Iterator[dict[str, Any]]:
    """The events of a run in the order in which they were written; lines cut short are left out."""
    names = [EVENTS, *(f"{_PARTS}/{name}" for name in sorted(storage.list(_PARTS)))]
    for data in read_all(storage, names):
        for line in (data or b"").splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue  # a power cut leaves such lines; what they log is in the commits
            if _is_event(event):
                yield event


def _is_event(value: object) -> bool:
    if not isinstance(value, dict) or not _KINDS.keys() <= value.keys():
        return False
    return all(isinstance(value[name], kind) for name, kind in _KINDS.items())


def read_times(storage: Storage) -> RunTimes:
    """Add up a run's log."""
    sessions: dict[str, tuple[float, float]] = {}
    images, workers = 0, set[tuple[str, int]]()
    for event in read_events(storage):
        now, session = float(event["time"]), event["session"]
        began, ended = sessions.get(session, (now, now))
        sessions[session] = min(began, now), max(ended, now)
        if event["event"] == "committed":
            images += event.get("images", 0)
        elif event["event"] == "worker_ready":
            workers.add((session, event.get("worker", 0)))
    if not sessions:
        return RunTimes()
    spans = sorted(sessions.values())
    ended = max(end for _, end in spans)
    return RunTimes(spans[0][0], ended, _length_of_union(spans), images, len(workers))


def _length_of_union(spans: list[tuple[float, float]]) -> float:
    """How long at least one of the spans lasts; they rise by their begin. Slices run beside."""
    total, reached = 0.0, float("-inf")
    for began, ended in spans:
        total += max(0.0, ended - max(began, reached))
        reached = max(reached, ended)
    return total
