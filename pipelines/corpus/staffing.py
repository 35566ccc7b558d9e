"""Where workers are started, and what is learned from starts that fail: no I/O, no processes.

A node where a start failed rests for a while that grows with each failure in a row; after some in
a row it is left out. A run ends when no node is left and nobody is at work.
"""

import random
from collections.abc import Callable, Set
from dataclasses import dataclass

from amg.config import EngineConfig
from amg.errors import BlockedRunError, CheckpointError, ConfigError, StorageError
from pipelines.corpus.messages import Node

_MOST_FAILURES = 3
_FIRST_REST_S, _LONGEST_REST_S = 5.0, 60.0


@dataclass
class _Failures:
    """The failed starts at one node since the last that went well."""

    in_a_row: int = 0
    failed_at: float = float("-inf")
    rests_until: float = float("-inf")
    reason: str = ""
    passing: bool = False


class Staffing:
    """Remembers failed starts by node; None stands for those that did not come so far as to a node.

    jitter: gives numbers from 0 to 1. Times are seconds of one clock that only goes forward.
    """

    def __init__(self, config: EngineConfig, jitter: Callable[[], float] = random.random) -> None:
        self._config, self._jitter = config, jitter
        self._failures: dict[Node | None, _Failures] = {}
        self._short_since: float | None = None
        self._was_anyone_ready = False

    def succeed(self, node: Node | None) -> None:
        """A worker is ready there."""
        self._was_anyone_ready = True
        self._failures.pop(None, None)
        self.free(node)

    def free(self, node: Node | None) -> None:
        """A worker that was ready there is gone: there is room for one, so it is tried anew."""
        self._failures.pop(node, None)

    def fail(
        self,
        node: Node | None,
        reason: str,
        started_at: float,
        now: float,
        *,
        passing: bool = False,
    ) -> bool:
        """A start failed; whether its node is left out from now on.

        passing: the reason may be over in some minutes, and be no fault of the node.
        """
        known = self._failures.setdefault(node, _Failures())
        known.reason, known.passing = reason, passing
        if started_at <= known.failed_at:
            return False  # under way when another failed there: it tells nothing new
        known.in_a_row += 1
        known.failed_at = now
        longest_s = min(_LONGEST_REST_S, _FIRST_REST_S * 2 ** (known.in_a_row - 1))
        known.rests_until = now + longest_s * self._jitter()
        return node is not None and known.in_a_row == _MOST_FAILURES

    def ends_the_run(self, error: Exception, nodes: Set[Node]) -> bool:
        """Whether no start can go well until somebody mends what the run was told, or its storage.

        On several machines it may be one that lacks a file, or whose disk is full.
        """
        lasts = isinstance(error, BlockedRunError | CheckpointError | ConfigError) or (
            isinstance(error, StorageError) and not error.passing
        )
        return lasts and not self._was_anyone_ready and len({n.host for n in nodes}) <= 1

    def avoided(self, now: float) -> frozenset[Node]:
        """The nodes where no worker should be started now: they rest, or are left out."""
        return frozenset(
            node
            for node, known in self._failures.items()
            if node is not None and (known.in_a_row >= _MOST_FAILURES or now < known.rests_until)
        )

    def must_wait(self, now: float) -> bool:
        """Whether nothing should be started anywhere, since starts fail before they have a node."""
        return None in self._failures and now < self._failures[None].rests_until

    def check_places(self, nodes: Callable[[], Set[Node]], now: float) -> None:
        """Raise BlockedRunError, naming nodes and reasons, if all `nodes` are left out.

        To be asked while no worker is ready, nor on its way on a node. Where a reason may pass, its
        nodes are tried again, until `check_strength` ends it.
        """
        if not self._failures:
            return
        out = {n for n, known in self._failures.items() if known.in_a_row >= _MOST_FAILURES}
        there = nodes()
        if None not in out and not (there and there <= out):
            return
        passing = [self._failures[node] for node in out if self._failures[node].passing]
        for known in passing:
            known.in_a_row = _MOST_FAILURES - 1
            known.rests_until = now + _LONGEST_REST_S * self._jitter()
        if not passing:
            raise BlockedRunError(f"no worker can be started: {self.reasons()}")

    def check_strength(self, n_ready: int, n_wanted: int, now: float) -> None:
        """Raise BlockedRunError when too few workers were ready for too long."""
        wanted = min(self._config.min_workers, n_wanted)
        if n_ready >= wanted:
            self._short_since = None
            return
        self._short_since = now if self._short_since is None else self._short_since
        limit_s = self._config.start_timeout_s
        if now - self._short_since > limit_s:
            why = f"; {self.reasons()}" if self._failures else ""
            found = f"{n_ready} of {wanted} workers were there"
            raise BlockedRunError(f"{found} for {limit_s:g} s{why}")

    def reasons(self) -> str:
        """Which nodes fail, and why."""
        return "; ".join(
            f"{node or 'before it had a node'}: {known.in_a_row} starts in a row failed, the last: "
            f"{known.reason}"
            for node, known in self._failures.items()
        )
