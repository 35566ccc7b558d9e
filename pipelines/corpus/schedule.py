"""Which shard is tried next, and what is learned from attempts that fail: no I/O, no processes.

An attempt that ends with its worker's death names the images that were in flight. They are done
alone, before all others, in the shard's next attempt; an image that keeps killing workers while it
is alone is condemned, and its row says so. A shard that fails for no image's fault is tried a few
times, then left for the next run.
"""

import uuid
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from amg.inputs.sources import ImageSource
from pipelines.corpus.messages import Progress, ShardTask

_CAREFUL_AFTER = 3  # machines are also taken away for no image's fault


@dataclass
class _ShardHistory:
    """What earlier attempts at a shard taught."""

    fruitless: int = 0  # failed attempts since one that taught something
    suspects: set[int] = field(default_factory=set)
    kills: dict[int, int] = field(default_factory=dict)
    condemned: dict[int, str] = field(default_factory=dict)
    one_by_one: bool = False


class Schedule:
    """The shards of one driver: waiting, running, failed. Those that are done are forgotten.

    lost_attempts: shards with attempts that nobody saw the end of, from an earlier driver. A few
    such deaths of everything make the shard go image by image; one that left a single image in
    flight counts as a kill by that image.
    """

    def __init__(
        self,
        shards: Iterable[int],
        max_attempts: int,
        max_kills: int,
        lost_attempts: Mapping[int, Sequence[Progress]] | None = None,
        earlier_files: Mapping[int, str] | None = None,
    ) -> None:
        self._waiting = deque(shards)
        self._running: dict[str, int] = {}
        self._max_attempts, self._max_kills = max_attempts, max_kills
        self._histories: dict[int, _ShardHistory] = {}
        self._earlier_files = earlier_files or {}
        self.failed: dict[int, str] = {}
        """Shards given up, with the reason of their last attempt."""
        for shard, attempts in (lost_attempts or {}).items():
            self._learn_of_lost(shard, attempts)

    @property
    def n_waiting(self) -> int:
        """Shards that no worker has."""
        return len(self._waiting)

    @property
    def n_running(self) -> int:
        """Shards that a worker has, at work on them or queued."""
        return len(self._running)

    @property
    def is_finished(self) -> bool:
        """Nothing waits and nothing runs."""
        return not self._waiting and not self._running

    def next_shard(self) -> int | None:
        """Take a shard off the queue; `begin` makes it a task."""
        return self._waiting.popleft() if self._waiting else None

    def return_shard(self, shard: int) -> None:
        """Undo `next_shard`: nothing was begun."""
        self._waiting.appendleft(shard)

    def begin(self, shard: int, sources: Sequence[ImageSource]) -> ShardTask:
        """A new attempt at a shard."""
        attempt = uuid.uuid4().hex[:8]
        self._running[attempt] = shard
        history = self._histories.get(shard, _ShardHistory())
        return ShardTask(
            shard=shard,
            attempt=attempt,
            sources=tuple(sources),
            alone=tuple(sorted(history.suspects)),
            one_by_one=history.one_by_one,
            condemned=dict(history.condemned),
            earlier_file=self._earlier_files.get(shard),
        )

    def shard_of(self, attempt: str) -> int | None:
        """The shard of a running attempt; None for one that was given up: its result is late."""
        return self._running.get(attempt)

    def succeed(self, attempt: str) -> None:
        """The attempt's shard is committed."""
        self._histories.pop(self._running.pop(attempt), None)

    def put_back(self, attempt: str) -> None:
        """The attempt never began, or was broken off by the driver: it teaches nothing."""
        self._waiting.appendleft(self._running.pop(attempt))

    def fail(self, attempt: str, reason: str) -> None:
        """The worker lives, but the shard could not be done: no image is to blame."""
        self._retry(self._running.pop(attempt), reason, taught=False)

    def lose(self, attempt: str, progress: Progress | None, reason: str) -> None:
        """The worker died, or hung and was killed, in this attempt."""
        shard = self._running.pop(attempt)
        in_flight = () if progress is None else progress.in_flight
        taught = self._learn(shard, in_flight, reason)
        history = self._histories[shard]
        if not taught and history.fruitless:
            history.one_by_one = True  # nobody was seen: look at each image by itself
        self._retry(shard, reason, taught=taught)

    def _learn(self, shard: int, in_flight: Sequence[int], reason: str) -> bool:
        """Blame the images in flight; whether this narrows down who did it."""
        history = self._histories.setdefault(shard, _ShardHistory())
        if len(in_flight) == 1:
            (index,) = in_flight
            kills = history.kills[index] = history.kills.get(index, 0) + 1
            if kills >= self._max_kills:
                history.condemned[index] = f"{kills} workers were lost with this image: {reason}"
                history.suspects.discard(index)
            else:
                history.suspects.add(index)
            return True
        new = set(in_flight) - history.suspects
        history.suspects |= new
        return bool(new)

    def _learn_of_lost(self, shard: int, attempts: Sequence[Progress]) -> None:
        for progress in attempts:
            self._learn(shard, progress.in_flight, "the whole run was lost")
        unseen = sum(not progress.in_flight for progress in attempts)
        self._histories[shard].one_by_one = unseen >= _CAREFUL_AFTER

    def _retry(self, shard: int, reason: str, *, taught: bool) -> None:
        history = self._histories.setdefault(shard, _ShardHistory())
        history.fruitless = 0 if taught else history.fruitless + 1
        if history.fruitless >= self._max_attempts:
            self.failed[shard] = reason
            return
        self._waiting.append(shard)
