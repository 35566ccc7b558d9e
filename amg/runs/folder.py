"""What a run's folder holds, for those who write it and those who read it.

OUT/plan.json             what is to be done, and with what: written when inputs.parquet is there
    inputs.parquet        the planned images in order; shard i is rows i * n to (i + 1) * n
    prompts.parquet       of a run from prompts: what is asked, by planned row
    config.yaml           what decides the rows, and nothing of where and how they are made
    data/part-*.parquet   shards; only those that a commit names count
    commits/00042.json    one for each finished shard
    attempts/             marks of attempts that have not been committed
    failures/             tracebacks of workers that ended by an error: in a shard, in their start
    events.jsonl          what happened; events/*.jsonl on object stores
    report.json           sums over the commits
    _SUCCESS              all shards are committed
    report/               the page that `amg report` makes of it
    evaluation/*.json     what `amg eval` has found
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from amg.errors import RunError
from amg.inputs.folders import PassedOver
from amg.records import EmbeddingDtype
from amg.runs.schema import FAILED, ImageRow
from amg.storage.stores import Storage, read_all

PLAN = "plan.json"
INPUTS = "inputs.parquet"
PROMPTS = "prompts.parquet"
CONFIG = "config.yaml"
REPORT = "report.json"
SUCCESS = "_SUCCESS"
COMMITS = "commits"
ATTEMPTS = "attempts"
FAILURES = "failures"
DATA = "data"
EVENTS = "events.jsonl"
PAGE = "report"
EVALUATION = "evaluation"
REFILTERED = "refiltered"
"""In the identity of a plan: which run's rows these were made of."""
REPORT_PAGES = PassedOver(PAGE, beside=frozenset((PLAN, INPUTS)))
"""A run may lie among its images, and its report is full of pictures: they are no inputs."""

_WRITTEN_BY_RUNS = re.compile(
    r"""data/part-\d{5,}\.[0-9a-f]{8}\.parquet | commits/\d{5,}\.json
    | attempts/\d{5,}\.[0-9a-f]{8}\.json | events/[0-9a-f]{8}-\d{5,}\.jsonl
    | failures/(\d{5,}|start)\.[0-9a-f]{8}\.txt
    | ((data|commits|attempts|failures)/)?\.[^/]+\.[0-9a-f]{8}\.partial""",
    re.VERBOSE,
)

EMBED, EMBEDDINGS = "embed", "embeddings"
"""In the identity of a plan: that its rows are embeddings; those that its masks were made of."""

Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class PromptCounts:
    """Prompts about planned images, and about none; images with prompts, and without."""

    asked: int
    without_image: int
    images: int
    images_without: int

    def __str__(self) -> str:
        said = f"{self.asked} prompts about {self.images} images"
        if self.images_without:
            said += f"; {self.images_without} images have none"
        if self.without_image:
            said += f"; {self.without_image} prompts more are about no image of the run"
        return said


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to do. `identity` is all that decides its rows, `fingerprint` its sha256.

    A shard's rows depend on nothing else: a folder takes no work of another fingerprint.
    `n_bytes` are those of the images whose size was known without a request. `has_secrets`: URLs
    of images have a user, password or query, which the folder does not hold.

    `embedding_bytes`: what is to be kept of each image, in a run of embeddings. `embeddings`: the
    address of those that stand for the images, wherever it is now.

    Of a run from prompts: their counts, and the numbers of their categories; `has_uncategorised`:
    some have no category.
    """

    run_id: str
    fingerprint: str
    identity: Mapping[str, Any]
    n_images: int
    n_bytes: int
    images_per_shard: int
    has_secrets: bool = False
    prompts: PromptCounts | None = None
    categories: Mapping[str, int] = field(default_factory=dict)
    has_uncategorised: bool = False
    embedding_bytes: int | None = None
    embeddings: str | None = None

    @property
    def embed_dtype(self) -> EmbeddingDtype | None:
        """What its embeddings are kept in; None of a run of masks."""
        return self.identity.get(EMBED, {}).get("dtype")

    @property
    def has_prompts(self) -> bool:
        """Whether its masks are answers to prompts, and not what a grid of points finds."""
        return self.prompts is not None

    @property
    def n_shards(self) -> int:
        """How many shards the images make."""
        return -(-self.n_images // self.images_per_shard)

    def shard_rows(self, shard: int) -> range:
        """The rows of inputs.parquet that belong to a shard."""
        start = shard * self.images_per_shard
        return range(start, min(start + self.images_per_shard, self.n_images))


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts and seconds of some rows; tallies add up. `prompt_errors` could not be asked."""

    images: int = 0
    masks: int = 0
    statuses: Mapping[str, int] = field(default_factory=dict)
    decode_s: float = 0.0
    encode_s: float = 0.0
    masks_s: float = 0.0
    prompt_errors: int = 0

    @property
    def failed(self) -> int:
        """Images whose row has a reason instead of masks."""
        return self.count(FAILED)

    def count(self, statuses: Collection[str]) -> int:
        """Images of these statuses."""
        return sum(n for status, n in self.statuses.items() if status in statuses)

    def __add__(self, other: "Tally") -> "Tally":
        statuses = {
            status: self.statuses.get(status, 0) + other.statuses.get(status, 0)
            for status in sorted({*self.statuses, *other.statuses})
        }
        return Tally(
            self.images + other.images,
            self.masks + other.masks,
            statuses,
            self.decode_s + other.decode_s,
            self.encode_s + other.encode_s,
            self.masks_s + other.masks_s,
            self.prompt_errors + other.prompt_errors,
        )

    @staticmethod
    def of(row: ImageRow) -> "Tally":
        """The tally of one row."""
        counts, n_errors = {row.status: 1}, len(row.prompt_errors or ())
        seconds = row.decode_s, row.encode_s, row.masks_s
        return Tally(1, len(row.masks), counts, *seconds, n_errors)

    @staticmethod
    def total(tallies: "Iterable[Tally]") -> "Tally":
        """The sum."""
        return sum(tallies, Tally())


@dataclass(frozen=True, slots=True)
class Commit:
    """A shard that is done: which file holds it, and what is in it."""

    shard: int
    file: str
    n_bytes: int
    sha256: str
    tally: Tally
    attempt: str
    fingerprint: str


def shard_file(shard: int, attempt: str) -> str:
    """The name of a shard's file: no two attempts share one."""
    return f"{DATA}/part-{shard:05d}.{attempt}.parquet"


def commit_file(shard: int) -> str:
    """The name of a shard's commit."""
    return f"{COMMITS}/{shard:05d}.json"


def attempt_file(shard: int, attempt: str) -> str:
    """The name of the mark that an attempt was begun."""
    return f"{ATTEMPTS}/{shard:05d}.{attempt}.json"


def failure_file(shard: int | None, attempt: str) -> str:
    """The name of the traceback that ended an attempt; of a worker's start for no shard."""
    return f"{FAILURES}/{'start' if shard is None else f'{shard:05d}'}.{attempt}.txt"


def list_run_files(storage: Storage) -> dict[str, int]:
    """What runs have left in the folders of a run, and the bytes of each; nothing of others'."""
    return {
        name: size
        for folder in ("", DATA, COMMITS, ATTEMPTS, FAILURES, "events")
        for entry, size in storage.list(folder).items()
        if _WRITTEN_BY_RUNS.fullmatch(name := f"{folder}/{entry}".lstrip("/"))
    }


def to_json(record: object) -> bytes:
    """A record as an indented JSON file."""
    assert hasattr(record, "__dataclass_fields__")
    values: Any = asdict(record)  # pyright: ignore[reportArgumentType]
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()


def _from_json(data: bytes, kind: type[Record], where: str) -> Record:
    try:
        values = json.loads(data)
        names = [f.name for f in fields(kind)]  # pyright: ignore[reportArgumentType]
        if "tally" in values:
            values["tally"] = Tally(**values["tally"])
        if "prompts" in values and values["prompts"] is not None:
            values["prompts"] = PromptCounts(**values["prompts"])
        return kind(**{name: values[name] for name in names if name in values})
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{where}: no valid {kind.__name__.lower()}: {error!r}") from error


def read_plan(storage: Storage) -> Plan | None:
    """The plan of a run's folder, None if there is none. Raises RunError for a damaged one."""
    data = storage.read(PLAN)
    return None if data is None else _from_json(data, Plan, storage.url(PLAN))


def require_plan(storage: Storage) -> Plan:
    """The plan of a run's folder. Raises RunError if there is none."""
    plan = read_plan(storage)
    if plan is None:
        raise RunError(f"{storage.url()} holds no run: there is no {PLAN}")
    return plan


def require_masks(plan: Plan, where: str) -> None:
    """Raise RunError for a run of embeddings, where masks are wanted."""
    if plan.embed_dtype is not None:
        raise RunError(
            f"{where} holds embeddings, and no masks: "
            f"`amg run --embeddings {where} --out RUN` makes masks of them"
        )


def read_commits(storage: Storage, plan: Plan) -> dict[int, Commit]:
    """The commits of a run, by shard, in order.

    Raises RunError for one that is damaged or of another plan.
    """
    names = sorted(f"{COMMITS}/{n}" for n in storage.list(COMMITS) if _is_commit(n))
    found = zip(names, read_all(storage, names), strict=True)
    commits = [_to_commit(storage, plan, name, data) for name, data in found if data is not None]
    return {commit.shard: commit for commit in sorted(commits, key=lambda commit: commit.shard)}


def read_commit(storage: Storage, plan: Plan, name: str) -> Commit | None:
    """One commit, None if there is none. Raises as `read_commits`."""
    data = storage.read(name)
    return None if data is None else _to_commit(storage, plan, name, data)


def _is_commit(name: str) -> bool:
    return name.endswith(".json") and not name.startswith(".")


def _to_commit(storage: Storage, plan: Plan, name: str, data: bytes) -> Commit:
    commit = _from_json(data, Commit, storage.url(name))
    if commit.fingerprint != plan.fingerprint or commit.shard not in range(plan.n_shards):
        raise RunError(f"{storage.url(name)} belongs to another plan")
    return commit
