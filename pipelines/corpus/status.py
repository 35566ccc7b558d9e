"""How a run stands: what its folder says, from its commits, its log and its leases."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from amg.records import EmbeddingDtype
from amg.runs.events import read_events
from amg.runs.folder import REFILTERED, PromptCounts, Tally, read_commits, require_plan
from amg.storage.patient import open_patiently
from amg.storage.stores import Storage
from pipelines.corpus.holders import Holder, find_holders

_GONE = "its driver is gone without a word: killed, or its machine was lost"

_SLICE_DONE = "the last driver had a slice to do, and has done it"


@dataclass(frozen=True, slots=True)
class RunStatus:
    """How a run stands. Times are seconds since 1970, None where its log says nothing.

    `drivers` are at work on it now, also on a finished one whose failed rows are done again.
    `failed_shards` could not be done, with the reason, and are left for the next run; `stopped`
    says why nobody is at work though shards are left. `images_per_s` and `seconds_left` are those
    of the drivers; without one, the rate is that of the last. `embed_dtype`: of embeddings.
    """

    run_id: str
    is_finished: bool
    n_images: int
    n_shards: int
    n_committed: int
    tally: Tally
    drivers: list[Holder]
    failed_shards: dict[int, str]
    stopped: str | None
    images_per_s: float | None
    seconds_left: float | None
    began: float | None
    last_event: float | None
    refiltered_from: str | None
    is_approximate: bool
    prompts: PromptCounts | None = None
    embed_dtype: EmbeddingDtype | None = None


def look_at(run: str | os.PathLike[str]) -> RunStatus:
    """See how a run stands, and change nothing. Raises RunError for a folder without a plan."""
    storage = open_patiently(run)
    plan = require_plan(storage)
    drivers = find_holders(storage)
    commits = read_commits(storage, plan)  # after the drivers: one that ends now leaves none behind
    log = _read_log(storage)
    is_finished = len(commits) == plan.n_shards
    now = time.time()
    at_work = log.at_work(drivers)
    origin = plan.identity.get(REFILTERED, {})
    return RunStatus(
        run_id=plan.run_id,
        is_finished=is_finished,
        n_images=plan.n_images,
        n_shards=plan.n_shards,
        n_committed=len(commits),
        tally=Tally.total(commit.tally for commit in commits.values()),
        drivers=drivers,
        failed_shards=log.failed,
        stopped=None if drivers or is_finished else log.why_stopped(),
        images_per_s=_rate(at_work, now) if drivers else log.last_rate(),
        seconds_left=_longest([session.seconds_left(now) for session in at_work]),
        began=log.began,
        last_event=log.last_event,
        refiltered_from=origin.get("run_id"),
        is_approximate=origin.get("approximate", False),
        prompts=plan.prompts,
        embed_dtype=plan.embed_dtype,
    )


def _rate(at_work: "list[_Session]", now: float) -> float | None:
    """Images a second of all; None before the first is committed."""
    return sum(session.images_per_s(now) for session in at_work) or None


def _longest(seconds: list[float | None]) -> float | None:
    """The time until the last is done; None where it is not known of each."""
    known = [s for s in seconds if s is not None]
    return max(known) if known and len(known) == len(seconds) else None


@dataclass(slots=True)
class _Session:
    """One driver's work on a run."""

    began: float
    last_event: float
    n_shards: int = 0
    n_committed: int = 0
    n_images: int = 0
    ended: bool = False
    stopped: str | None = None

    def images_per_s(self, now: float) -> float:
        """Images a second from its begin until now, of committed shards."""
        return self.n_images / (now - self.began) if now > self.began else 0.0

    def seconds_left(self, now: float) -> float | None:
        """At the pace of its shards so far; None before the first."""
        if not self.n_committed:
            return None
        return (now - self.began) * (self.n_shards - self.n_committed) / self.n_committed


@dataclass(slots=True)
class _Log:
    """What the events of a run add up to."""

    sessions: dict[str, _Session] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    began: float | None = None
    last_event: float | None = None

    def at_work(self, drivers: list[Holder]) -> list[_Session]:
        """The sessions of drivers that live: others were killed, and have not ended either."""
        since = min((driver.since or 0.0 for driver in drivers), default=0.0)
        going = [s for s in self.sessions.values() if not s.ended and s.began >= since - 1]
        return sorted(going, key=lambda s: s.began)[-len(drivers) :] if drivers else []

    def last_rate(self) -> float | None:
        """Images a second of the last session that did any."""
        worked = [s for s in self.sessions.values() if s.n_images]
        last = max(worked, key=lambda s: s.began, default=None)
        return None if last is None else last.images_per_s(last.last_event)

    def why_stopped(self) -> str | None:
        """Why the last session left shards undone."""
        last = max(self.sessions.values(), key=lambda s: s.began, default=None)
        if last is None:
            return "no driver has begun its work"
        if not last.ended:
            return _GONE
        if last.stopped is None and self.failed:
            return f"shards that could not be done: {len(self.failed)}"
        return last.stopped or _SLICE_DONE

    def add(self, event: Mapping[str, Any]) -> None:
        """Count an event; they come by time."""
        now = float(event["time"])
        self.began = now if self.began is None else self.began
        self.last_event = now
        session = self.sessions.setdefault(event["session"], _Session(now, now))
        session.last_event = now
        match event["event"]:
            case "started":
                session.n_shards = event.get("shards", 0)
            case "committed":
                session.n_committed += 1
                session.n_images += event.get("images", 0)
                self.failed.pop(event.get("shard", -1), None)
            case "ended":
                session.ended, session.stopped = True, event.get("stopped")
                failed = event.get("failed") or {}
                self.failed.update((int(shard), reason) for shard, reason in failed.items())


def _read_log(storage: Storage) -> _Log:
    log = _Log()
    for event in sorted(read_events(storage), key=lambda event: event["time"]):
        log.add(event)
    return log
