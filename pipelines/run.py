"""A run: from inputs and a configuration to committed shards, taken up wherever it was left."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version

import yaml

from amg.config import Config
from amg.errors import RunError
from amg.io.run_folder import (
    CONFIG,
    Commit,
    Plan,
    Tally,
    read_commits,
    require_plan,
)
from amg.io.sources import SourceOptions
from amg.io.storage import Storage, open_storage
from pipelines.commit import finish
from pipelines.driver import Driver, Watch
from pipelines.engines.build import make_engine
from pipelines.lease import Lease, hold_lease
from pipelines.messages import MakeGenerator, WorkerSetup
from pipelines.plan import Job, clear, prepare
from pipelines.worker import make_generator

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run has come to: sums over all its commits, whoever made them.

    `failed_shards` could not be done and are left for the next run, `stopped` says why the run
    ended early. `session_images` were done in `session_s` by the driver that wrote this.
    """

    n_images: int
    n_shards: int
    n_committed: int
    tally: Tally
    failed_shards: dict[int, str] = field(default_factory=dict)
    stopped: str | None = None
    session_images: int = 0
    session_s: float = 0.0

    @property
    def is_complete(self) -> bool:
        """Every planned image has its row."""
        return self.n_committed == self.n_shards


class Run:
    """One run over `inputs` into the folder `out`, both local or on an object store.

    `slice_` (index, count) takes only every count-th shard, so that several drivers can share a
    run without talking to each other. `make_generator` replaces the model; it must be importable
    by name where the workers live.
    """

    def __init__(
        self,
        inputs: Sequence[str | os.PathLike[str]],
        out: str | os.PathLike[str],
        config: Config | None = None,
        *,
        options: SourceOptions = SourceOptions(),
        limit: int | None = None,
        overwrite: bool = False,
        slice_: tuple[int, int] = (0, 1),
        make_generator: MakeGenerator = make_generator,
    ) -> None:
        self.job = Job([os.fspath(i) for i in inputs], config or Config(), options, limit)
        self.storage = open_storage(out)
        self._overwrite, self._slice = overwrite, slice_
        self._make_generator = make_generator

    def execute(self, watch: Watch = lambda _: None) -> RunReport:
        """Segment every planned image that has no committed row yet; `watch` sees how it goes.

        SIGINT and SIGTERM end it early and in order: what is committed stays, the next run goes
        on from there.

        Raises ConfigError for inputs and configuration, CheckpointError for weights, RunError for
        a folder that is in use or holds another run, StorageError for one that keeps failing.
        """
        with hold_lease(self.storage, self._slice) as lease:
            if self._overwrite:
                clear(self.storage)
            plan, config = prepare(self.job, self.storage)
            commits = read_commits(self.storage, plan)
            index, count = self._slice
            todo = [s for s in range(index, plan.n_shards, count) if s not in commits]
            setup = make_setup(self.storage, plan, config, self._make_generator)
            return work(self.storage, lease, plan, setup, commits, todo, watch)


def retry_failed(
    out: str | os.PathLike[str],
    *,
    change: Callable[[Config], Config] = lambda config: config,
    make_generator: MakeGenerator = make_generator,
    watch: Watch = lambda _: None,
) -> RunReport:
    """Do the failed rows of a run's committed shards again; good rows are taken over unchanged.

    change: may turn to another engine or device; what decides the rows must stay. Each shard with
    failed rows gets a new file and a new commit; `gc` deletes the old file. Raises as `execute`.
    """
    storage = open_storage(out)
    with hold_lease(storage) as lease:
        plan = require_plan(storage)
        config = change(read_config(storage))
        commits = read_commits(storage, plan)
        earlier = {s: c.file for s, c in commits.items() if c.tally.failed}
        setup = make_setup(storage, plan, config, make_generator)
        return work(storage, lease, plan, setup, commits, list(earlier), watch, earlier)


def read_config(storage: Storage) -> Config:
    """The configuration in force of a run. Raises RunError, ConfigError."""
    data = storage.read(CONFIG)
    if data is None:
        raise RunError(f"{storage.url(CONFIG)} is missing")
    return Config(**yaml.safe_load(data))


def make_setup(
    storage: Storage, plan: Plan, config: Config, make_generator: MakeGenerator
) -> WorkerSetup:
    """What workers need for this plan."""
    model = plan.identity["model"]
    return WorkerSetup(
        out=storage.address,
        config=config,
        make_generator=make_generator,
        fingerprint=plan.fingerprint,
        weights_sha256=model["weights_sha256"],
        metadata={
            "amg.version": version("amg"),
            "amg.run": plan.run_id,
            "amg.model": model["name"],
            "amg.weights_sha256": model["weights_sha256"],
            "amg.generator": config.generator.model_dump_json(),
        },
    )


def work(
    storage: Storage,
    lease: Lease,
    plan: Plan,
    setup: WorkerSetup,
    commits: dict[int, Commit],
    todo: list[int],
    watch: Watch,
    earlier_files: dict[int, str] | None = None,
) -> RunReport:
    """Do the shards `todo`, and write the report."""
    started = time.monotonic()
    driver = Driver(storage, lease, plan, setup, commits, todo, earlier_files)
    if todo:
        with _stopped_by_signals(driver):
            driver.run(make_engine(setup, len(todo)), watch)
    report = replace(
        summarize(storage.address),  # drivers of other slices may have committed too
        failed_shards=driver.schedule.failed,
        stopped=driver.stopped,
        session_images=driver.state().done.images,
        session_s=time.monotonic() - started,
    )
    finish(storage, report, complete=report.is_complete)
    return report


def summarize(out: str | os.PathLike[str]) -> RunReport:
    """What a run's folder says of it now. Raises RunError for a folder without a plan."""
    storage = open_storage(out)
    plan = require_plan(storage)
    commits = read_commits(storage, plan)
    tally = Tally.total(commit.tally for commit in commits.values())
    return RunReport(plan.n_images, plan.n_shards, len(commits), tally)


@contextmanager
def _stopped_by_signals(driver: Driver) -> Iterator[None]:
    """SIGINT and SIGTERM ask the driver to stop; where Python lets us listen to them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: object) -> None:
        driver.stop(signal.Signals(number).name)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
