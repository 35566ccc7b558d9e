"""What a driver and its workers say to each other: small, frozen, picklable."""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from amg.config import Config
from amg.inputs.sources import ImageSource
from amg.records import ImageResult
from amg.runs.folder import Tally
from amg.runs.schema import FAILED, ImageRow


class HasBytes(Protocol):
    """An array, or what else knows how much memory it takes."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        ...


class Segmenter(Protocol):
    """What a worker needs of a mask generator."""

    @property
    def prepare(self) -> Callable[..., HasBytes]:
        """Does what an image (H, W, 3) uint8 RGB needs of the CPU before the device; in threads.

        In runs from embeddings it takes an `Embedding` instead, in runs from prompts the image's
        prompts as the second argument.
        """
        ...

    def generate_batch(self, images: list[Any]) -> list[ImageResult]:
        """Segment images that were prepared; masks of prompts say which they answer."""
        ...

    def with_smaller_batches(self) -> "Segmenter | None":
        """One that needs less memory at once; None if there is none."""
        ...


MakeGenerator = Callable[[Config, Callable[[], None]], Segmenter]
"""Builds a worker's generator; the generator calls its second argument often, as a heartbeat.

Must be importable where the worker runs, since it travels by name.
"""


class ShardWorker(Protocol):
    """What does shards, one at a time, wherever it lives."""

    def run(self, task: "ShardTask") -> "ShardResult":
        """Do a shard, and publish its file."""
        ...


OnProgress = Callable[["Progress"], None]
"""Told where a worker is in its shard."""

MakeWorker = Callable[["WorkerSetup", OnProgress], ShardWorker]
"""Builds a worker, where it will work: it travels by name, as what a `partial` of it holds does."""


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """What a worker needs before its first shard.

    `fingerprint` and `metadata` go into each shard; `weights_sha256` is what the plan was made
    with: a worker that finds other weights refuses to work. `witness` is an image that the driver
    could read: where it cannot be read, something is wrong with the place.
    """

    out: str
    config: Config
    make_worker: MakeWorker
    fingerprint: str
    weights_sha256: str | None
    metadata: Mapping[str, str] = field(default_factory=dict)
    witness: ImageSource | None = None
    has_prompts: bool = False
    """The images' prompts are in the run's folder."""
    embeddings: str | None = None
    """Where embeddings are that stand for the images."""
    again: frozenset[str] = FAILED
    """Statuses of the rows of a committed shard that are done again."""


@dataclass(frozen=True, slots=True)
class ShardTask:
    """One attempt at one shard.

    `alone`: indices of `sources` to do one by one before all others, since a worker died while
    they were in flight. `one_by_one`: never have two images in flight. `condemned`: images that
    must not be touched, with the reason for their rows. `earlier_file`: a committed shard whose
    rows are taken over, but for those that are done again.
    """

    shard: int
    attempt: str
    sources: tuple[ImageSource, ...]
    alone: tuple[int, ...] = ()
    one_by_one: bool = False
    condemned: Mapping[int, str] = field(default_factory=dict)
    earlier_file: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a worker is in its shard: images `in_flight` are read or segmented right now.

    `beat` counts the steps inside; a worker whose beat stands still is stuck. `busy_s` is the time
    the generator has worked on this shard.
    """

    attempt: str
    in_flight: tuple[int, ...] = ()
    tally: Tally = Tally()
    beat: int = 0
    busy_s: float = 0.0

    def after(self, row: ImageRow) -> "Progress":
        """The progress when one more row is written."""
        return replace(self, tally=self.tally + Tally.of(row))


@dataclass(frozen=True, slots=True)
class ShardResult:
    """A published shard, ready to be committed."""

    shard: int
    attempt: str
    file: str
    n_bytes: int
    sha256: str
    tally: Tally
    busy_s: float


@dataclass(frozen=True, slots=True)
class Node:
    """Where workers live, and where they may fail: a machine of a cluster, a device of this one."""

    id: str
    host: str = field(compare=False)

    def __str__(self) -> str:
        return self.host if self.id == self.host else f"{self.host} ({self.id[:12]})"


# What an engine tells the driver of a worker.
@dataclass(frozen=True, slots=True)
class Placed:
    """The worker has a process on a node, and begins to start there."""

    worker: int
    node: Node


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker holds its model and waits for shards."""

    worker: int


@dataclass(frozen=True, slots=True)
class Moved:
    """The worker made progress."""

    worker: int
    progress: Progress


@dataclass(frozen=True, slots=True)
class Finished:
    """The worker published a shard."""

    worker: int
    result: ShardResult


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker lives, but could not do the shard (None: could not start)."""

    worker: int
    attempt: str | None
    error: Exception
    traceback: str | None = None


@dataclass(frozen=True, slots=True)
class Died:
    """The worker's process is gone or going; `blameless`: because its whole machine is."""

    worker: int
    reason: str
    blameless: bool = False
    traceback: str | None = None


Event = Placed | Ready | Moved | Finished | Failed | Died


class Engine(Protocol):
    """Where workers live. Workers have numbers, given out in `start`, never twice."""

    max_workers: int

    def nodes(self) -> Set[Node]:
        """Where workers fit, were nobody else there."""
        ...

    def start(self, avoid: Set[Node]) -> int | None:
        """Begin to start a worker, on none of the nodes `avoid`; None if there is no other.

        `Placed` and `Ready` follow, when there is room for it, or `Failed` or `Died`.
        """
        ...

    def submit(self, worker: int, task: ShardTask) -> None:
        """Queue a shard on a worker."""
        ...

    def wait(self, timeout_s: float) -> list[Event]:
        """What has happened; at the latest after the timeout, nothing."""
        ...

    def kill(self, worker: int) -> None:
        """End a worker at once, if it has not ended yet; no event follows."""
        ...

    def close(self) -> None:
        """End all workers; nothing is left running."""
        ...
