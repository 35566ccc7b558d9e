"""A run: from inputs and a configuration to committed shards, taken up wherever it was left."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

from amg.config import Config
from amg.errors import ConfigError, InterruptedRunError, RunError
from amg.inputs.moved import parse_moves
from amg.inputs.sources import ImageSource, SourceOptions
from amg.records import EmbeddingDtype
from amg.runs.folder import (
    PROMPTS,
    REFILTERED,
    Commit,
    Plan,
    PromptCounts,
    Tally,
    read_commits,
    require_plan,
)
from amg.runs.planned import PlannedInputs
from amg.runs.schema import FAILED, MODEL, WEIGHTS
from amg.runs.spool import CompleteInputs
from amg.storage.patient import PatientStorage, open_patiently
from amg.storage.stores import Storage
from pipelines.corpus.commit import finish
from pipelines.corpus.driver import Driver
from pipelines.corpus.embeddings import open_embeddings
from pipelines.corpus.engines.build import make_engine
from pipelines.corpus.generators import default_generator
from pipelines.corpus.lease import Lease, hold_lease, hold_planning_lease
from pipelines.corpus.listing import Job, check_job
from pipelines.corpus.messages import MakeGenerator, MakeWorker, WorkerSetup
from pipelines.corpus.plan import check_config, prepare, take_inputs
from pipelines.corpus.settings import read_config, settle_paths
from pipelines.corpus.state import OnState
from pipelines.corpus.witness import find_witness, spread
from pipelines.corpus.worker import segmenting

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run has come to: sums over all its commits, whoever made them.

    `failed_shards` could not be done and are left for the next run, `stopped` says why the run
    ended early. `session_images` were done in `session_s` by the driver that wrote this, which had
    no more to do if `session_is_done`: others may still be at other slices. `refiltered_from` is
    the run whose stored rows it was made of, `is_approximate` whether a fresh one may differ.
    `prompts` are counted where it is from prompts, `embed_dtype` is of a run of embeddings.
    """

    n_images: int
    n_shards: int
    n_committed: int
    tally: Tally
    failed_shards: dict[int, str] = field(default_factory=dict)
    stopped: str | None = None
    session_images: int = 0
    session_s: float = 0.0
    session_is_done: bool = False
    refiltered_from: str | None = None
    is_approximate: bool = False
    prompts: PromptCounts | None = None
    embed_dtype: EmbeddingDtype | None = None

    @property
    def is_complete(self) -> bool:
        """Every planned image has its row."""
        return self.n_committed == self.n_shards


class Run:
    """One run over `inputs` into the folder `out`, both local or on an object store.

    `slice_` (index, count) takes only every count-th shard, so that several drivers can share a
    run without talking to each other. `remap` (OLD=NEW, paths or URLs) says that what was planned
    below OLD is below NEW now: it is read there, and is the same. `make_generator` replaces the
    model: it gives a `pipelines.corpus.messages.Segmenter`, and must be importable by name where
    the workers live. `prompts`: a file, a folder of labels or a run, as docs/prompts.md has them;
    its boxes and points are asked, and no grid. `embed`: keep embeddings, in float16 or float32,
    and no masks. `embeddings`: such a run, finished, whose embeddings stand for its images; there
    are no inputs then. docs/embeddings.md has both.
    """

    def __init__(
        self,
        inputs: Sequence[str | os.PathLike[str]],
        out: str | os.PathLike[str],
        config: Config | None = None,
        *,
        options: SourceOptions = SourceOptions(),
        limit: int | None = None,
        remap: Sequence[str] = (),
        overwrite: bool = False,
        slice_: tuple[int, int] = (0, 1),
        make_generator: MakeGenerator | None = None,
        prompts: str | os.PathLike[str] | None = None,
        embed: EmbeddingDtype | None = None,
        embeddings: str | os.PathLike[str] | None = None,
    ) -> None:
        names, moves = [os.fspath(i) for i in inputs], parse_moves(remap)
        asked = None if prompts is None else os.fspath(prompts)
        kept = None if embeddings is None else os.fspath(embeddings)
        self.job = Job(names, config or Config(), options, limit, moves, asked, embed, kept)
        check_job(self.job)
        self.storage = open_patiently(out)
        if overwrite and slice_ != (0, 1):
            raise ConfigError("--overwrite would delete what other slices do: begin without slices")
        self._overwrite, self._slice = overwrite, slice_
        make = make_generator or default_generator(has_prompts=asked is not None, embed_dtype=embed)
        self._make_worker = segmenting(make)

    def execute(self, watch: OnState = lambda _: None) -> RunReport:
        """Segment every planned image that has no committed row yet; `watch` sees how it goes.

        SIGINT and SIGTERM end it early and in order: what is committed stays, the next run goes
        on from there.

        Raises ConfigError for inputs and configuration, CheckpointError for weights, RunError for
        a folder that holds another run, InterruptedRunError for one that is in use,
        BlockedRunError where workers cannot be had, StorageError for a folder that keeps failing.
        """
        with (
            Signals() as signals,
            hold_lease(self.storage.once, self._slice) as lease,
            CompleteInputs() as complete,
        ):
            with hold_planning_lease(self.storage.once):
                plan, config = prepare(self.job, self.storage, complete, overwrite=self._overwrite)
            commits = read_commits(self.storage, plan)
            todo = [s for s in shards_of(plan, self._slice) if s not in commits]
            setup = make_setup(self.storage, plan, config, self._make_worker)
            if self.job.embeddings is not None:  # where they are now
                setup = replace(setup, embeddings=open_patiently(self.job.embeddings).address)
            return work(
                self.storage, lease, plan, setup, commits, todo, watch, signals, complete=complete
            )


def retry_failed(
    run: str | os.PathLike[str],
    *,
    statuses: Collection[str] = FAILED,
    slice_: tuple[int, int] = (0, 1),
    inputs: Sequence[str | os.PathLike[str]] | None = None,
    options: SourceOptions = SourceOptions(),
    limit: int | None = None,
    remap: Sequence[str] = (),
    change: Callable[[Config], Config] = lambda config: config,
    make_generator: MakeGenerator | None = None,
    watch: OnState = lambda _: None,
) -> RunReport:
    """Do the failed rows of a run's committed shards again; good rows are taken over unchanged.

    statuses: of the rows that are done again; those that failed otherwise are taken over too.
    slice_: as `Run` has it. inputs: those of the run, with its `options` and `limit`, signed anew,
    say, or moved (`remap`, see `Run`); a run whose images' addresses had secrets needs them.
    change: says where and how, which the run's folder does not keep; what decides the rows must
    stay. Each shard with such rows gets a new file and a new commit; `gc` deletes the old file.
    Raises as `execute`, ConfigError for a status that no failed row has.
    """
    again = _check_statuses(statuses)
    storage = open_patiently(run)
    plan = require_plan(storage)
    with (
        Signals() as signals,
        hold_lease(storage.once, slice_) as lease,
        CompleteInputs() as complete,
    ):
        planned = read_config(storage)
        lenient = planned.run.model_copy(update={"max_failure_rate": 1.0})  # all have failed before
        config = settle_paths(change(planned.model_copy(update={"run": lenient})))
        check_config(plan, config)
        if plan.embeddings is not None:
            open_embeddings(plan.embeddings).check_planned(plan)
        commits = read_commits(storage, plan)
        shards = shards_of(plan, slice_)
        earlier = {s: c.file for s, c in commits.items() if s in shards and c.tally.count(again)}
        if inputs is not None and plan.embeddings is not None:
            raise ConfigError(f"inputs: the run takes those of the embeddings in {plan.embeddings}")
        if inputs is not None:
            names = [os.fspath(i) for i in inputs]
            job = Job(names, config, options, limit, parse_moves(remap))
            take_inputs(job, plan, storage, complete)
        elif plan.has_secrets and plan.embeddings is None and earlier:
            raise RunError(
                f"{storage.url()}: addresses of its images had a user, password or query, such as "
                "a signature, which a run does not keep: give its inputs again, after the run"
            )
        make = make_generator or default_generator(
            has_prompts=plan.has_prompts, embed_dtype=plan.embed_dtype
        )
        setup = replace(make_setup(storage, plan, config, segmenting(make)), again=again)
        todo = list(earlier)
        return work(
            storage, lease, plan, setup, commits, todo, watch, signals, earlier, complete=complete
        )


def _check_statuses(statuses: Collection[str]) -> frozenset[str]:
    unknown = sorted(set(statuses) - FAILED)
    if unknown:
        known = ", ".join(sorted(FAILED))
        raise ConfigError(f"status {unknown[0]!r}: rows fail as one of {known}")
    return frozenset(statuses)


def shards_of(plan: Plan, slice_: tuple[int, int]) -> range:
    """The shards of the slice `index, count` of a plan."""
    index, count = slice_
    return range(index, plan.n_shards, count)


def make_setup(
    storage: Storage, plan: Plan, config: Config, make_worker: MakeWorker
) -> WorkerSetup:
    """What workers need for this plan."""
    model = plan.identity["model"]
    return WorkerSetup(
        out=storage.address,
        config=config,
        make_worker=make_worker,
        fingerprint=plan.fingerprint,
        weights_sha256=model["weights_sha256"],
        has_prompts=plan.has_prompts,
        embeddings=plan.embeddings,
        metadata={
            "amg.version": version("amg"),
            "amg.run": plan.run_id,
            MODEL: model["name"],
            WEIGHTS: model["weights_sha256"],
            "amg.generator": config.generator.model_dump_json(),
        },
    )


def work(
    storage: PatientStorage,
    lease: Lease,
    plan: Plan,
    setup: WorkerSetup,
    commits: dict[int, Commit],
    todo: list[int],
    watch: OnState,
    signals: "Signals",
    earlier_files: dict[int, str] | None = None,
    *,
    complete: CompleteInputs | None = None,
) -> RunReport:
    """Do the shards `todo`, and write the report."""
    started = time.monotonic()
    earlier = [commits[shard].tally for shard in earlier_files or ()]
    taken_over = sum(tally.images - tally.count(setup.again) for tally in earlier)
    if plan.prompts is not None:
        logger.info("%s", plan.prompts)
    if plan.embedding_bytes is not None:
        logger.info("%s", describe_size(plan))
    if todo:
        if plan.has_prompts and storage.size(PROMPTS) is None:
            raise RunError(f"{storage.url(PROMPTS)} is missing: --overwrite begins anew")
        if setup.embeddings is None:
            allow = setup.config.run.allow
            setup = replace(setup, witness=look_for_witness(storage, plan, complete, allow))
    driver = Driver(storage, lease, plan, setup, commits, todo, earlier_files, complete)
    if todo:
        engine = make_engine(setup, len(todo))
        signals.tell(driver)  # only now: Ray's start takes the signals for itself
        driver.run(engine, watch)
    report = replace(
        summarize(storage.address),  # other slices may have committed too
        failed_shards=driver.schedule.failed,
        stopped=driver.stopped,
        session_images=max(0, driver.state().done.images - taken_over),
        session_s=time.monotonic() - started,
        session_is_done=driver.schedule.is_finished and not driver.schedule.failed,
    )
    finish(storage, report, complete=report.is_complete)
    return report


def describe_size(plan: Plan) -> str:
    """How much a run of embeddings is to write."""
    each = plan.embedding_bytes or 0
    return (
        f"{plan.n_images} embeddings of {each / 1e6:.1f} MB in {plan.embed_dtype}: "
        f"{each * plan.n_images / 1e9:.2f} GB, before compression"
    )


def look_for_witness(
    storage: Storage, plan: Plan, complete: CompleteInputs | None, allow: Sequence[str] | None
) -> ImageSource | None:
    """A planned image that can be read here and now; None if a look at some of them finds none."""
    complete = complete or CompleteInputs()
    with closing(PlannedInputs(storage)) as inputs:
        rows = spread(plan.n_images)
        sources = [s for row in rows for s in complete.read(inputs, range(row, row + 1))]
    return find_witness(sources, allow)


def summarize(run: str | os.PathLike[str]) -> RunReport:
    """What a run's folder says of it now. Raises RunError for a folder without a plan."""
    storage = open_patiently(run)
    plan = require_plan(storage)
    commits = read_commits(storage, plan)
    tally = Tally.total(commit.tally for commit in commits.values())
    origin = plan.identity.get(REFILTERED, {})
    return RunReport(
        plan.n_images,
        plan.n_shards,
        len(commits),
        tally,
        refiltered_from=origin.get("run_id"),
        is_approximate=origin.get("approximate", False),
        prompts=plan.prompts,
        embed_dtype=plan.embed_dtype,
    )


class Signals:
    """SIGINT and SIGTERM end a run in order, where Python lets us listen to them.

    While it is planned they end it with InterruptedRunError; a driver that was told of is asked to
    stop.
    """

    def __init__(self) -> None:
        self._driver: Driver | None = None
        self._before: dict[int, Any] = {}
        self._came: str | None = None

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            self._before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
            self._listen()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is not None and issubclass(kind, _PlanningStopped):
            raise InterruptedRunError(f"{self._came} while the run was planned") from None

    def tell(self, driver: Driver) -> None:
        """From now on signals are this driver's, and so is one that nobody has heeded."""
        self._driver = driver
        self._listen()
        if self._came is not None:  # what it raised was lost, in a destructor say
            driver.stop(self._came)

    def _listen(self) -> None:
        for number in self._before:
            signal.signal(number, self._stop)

    def _stop(self, number: int, _: object) -> None:
        name = signal.Signals(number).name
        if self._driver is None:
            self._came = name
            raise _PlanningStopped
        self._driver.stop(name)


class _PlanningStopped(BaseException):
    """A signal came. Listing inputs catches any `Exception`, which storages and files may raise."""
