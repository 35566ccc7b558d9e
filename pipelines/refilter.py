"""A new run from the rows of another: its masks filtered again, without model, images or device.

The new run's shards are made of the other's, one for one, by the driver and the engine that work
off any run: so it is resumed, watched and read as one. Source of what is exact:
`amg/generate/refilter.py`.
"""

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from amg.config import Config, EngineConfig, GeneratorConfig
from amg.errors import ConfigError, RunError, StorageError
from amg.generate.refilter import change_filters, inexact_changes, refilter
from amg.ops.processes import workers_for
from amg.runs.folder import (
    CONFIG,
    INPUTS,
    PLAN,
    PROMPTS,
    REFILTERED,
    Commit,
    Plan,
    read_commits,
    read_plan,
    require_masks,
    require_plan,
    to_json,
)
from amg.runs.schema import FAILED, SCHEMA_VERSION, ImageRow
from amg.runs.shards import read_shard
from amg.storage.access import is_passing
from amg.storage.patient import open_patiently
from amg.storage.stores import Storage
from pipelines.corpus.lease import hold_lease, hold_planning_lease
from pipelines.corpus.messages import OnProgress, Progress, ShardResult, ShardTask, WorkerSetup
from pipelines.corpus.plan import clear, differences, fingerprint
from pipelines.corpus.run import RunReport, Signals, make_setup, work
from pipelines.corpus.settings import as_yaml, decisive, read_config
from pipelines.corpus.state import OnState
from pipelines.corpus.worker import publish_shard

_REPORT_EVERY_S = 1.0


@dataclass(frozen=True)
class Origin:
    """The run that rows are taken from: its shards' files, and what its masks were made with."""

    address: str
    plan: Plan
    commits: Mapping[int, Commit]
    generator: GeneratorConfig

    @property
    def is_approximate(self) -> bool:
        """Whether its own masks are not surely those of a fresh run."""
        return self.plan.identity.get(REFILTERED, {}).get("approximate", False)

    def describe(self, approximate: bool) -> dict[str, Any]:
        """What the new plan says of it, down to the bytes that were there."""
        digest = hashlib.sha256("".join(c.sha256 for c in self.commits.values()).encode())
        return {
            "run_id": self.plan.run_id,
            "fingerprint": self.plan.fingerprint,
            "shards_sha256": digest.hexdigest(),
            "generator": self.plan.identity["generator"],
            "approximate": approximate or self.is_approximate,
        }


def refilter_run(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    changes: Mapping[str, Any],
    *,
    approximate: bool = False,
    workers: int | None = None,
    overwrite: bool = False,
    watch: OnState = lambda _: None,
) -> RunReport:
    """Make the run `out` of the rows of `source`, with some parameters of its generator changed.

    approximate: allow changes after which masks may differ from those of a fresh run; plan and
    report say so then. workers: processes that share the shards; None: one for each core, where
    there are many. What `out` holds of the same is gone on with.

    Raises ConfigError for changes that cannot be made, RunError for a source that is not complete
    and an `out` that holds another run, else as `Run.execute`.
    """
    origin = open_origin(source)
    wanted = change_filters(origin.generator, changes)
    reasons = inexact_changes(origin.generator, wanted)
    if reasons and not approximate:
        raise ConfigError(*reasons, "a run with keep_candidates allows it; or give --approximate")
    storage = open_patiently(out)
    n_workers = workers_for(origin.plan.n_shards, workers)
    config = _configure(read_config(open_patiently(source)), wanted, n_workers)
    with Signals() as signals, hold_lease(storage.once) as lease:
        with hold_planning_lease(storage.once):
            _check_not_itself(storage, origin)
            if overwrite:
                clear(storage)
            plan = _prepare(origin, storage, config, approximate=bool(reasons))
        commits = read_commits(storage, plan)
        todo = [shard for shard in range(plan.n_shards) if shard not in commits]
        setup = _make_setup(storage, plan, config, origin)
        return work(storage, lease, plan, setup, commits, todo, watch, signals)


def open_origin(source: str | os.PathLike[str]) -> Origin:
    """A finished run, to take rows from. Raises RunError for what is none, or not complete."""
    storage = open_patiently(source)
    plan = require_plan(storage)
    require_masks(plan, storage.url())
    commits = read_commits(storage, plan)
    if len(commits) < plan.n_shards:
        missing = f"{plan.n_shards - len(commits)} of {plan.n_shards} shards"
        raise RunError(f"{storage.url()}: {missing} are not committed: finish the run first")
    try:
        generator = GeneratorConfig(**plan.identity["generator"])
    except (KeyError, TypeError, ConfigError) as error:
        raise RunError(f"{storage.url(PLAN)}: no parameters to be read: {error}") from error
    return Origin(storage.address, plan, commits, generator)


def _configure(source: Config, wanted: GeneratorConfig, n_workers: int) -> Config:
    """The source's configuration, with the new parameters, for processes of this machine.

    Failed rows were accepted in the source: they stop nothing here.
    """
    return source.model_copy(
        update={
            "generator": wanted,
            "run": source.run.model_copy(update={"max_failure_rate": 1.0}),
            "engine": EngineConfig(max_workers=n_workers),
        }
    )


def _prepare(origin: Origin, storage: Storage, config: Config, *, approximate: bool) -> Plan:
    """The plan of the new run, made now or found there and equal.

    Raises RunError for a folder with another run, naming what differs.
    """
    what = {
        **origin.plan.identity,
        "schema_version": SCHEMA_VERSION,
        "generator": decisive(config.generator),
        REFILTERED: origin.describe(approximate),
    }
    plan = replace(
        origin.plan, run_id=uuid.uuid4().hex[:12], fingerprint=fingerprint(what), identity=what
    )
    found = read_plan(storage)
    if found is None:
        if storage.size(CONFIG) is not None:
            raise RunError(f"{storage.url(CONFIG)} is there, and no run wrote it: take another one")
        for name in (INPUTS, PROMPTS) if origin.plan.has_prompts else (INPUTS,):
            _copy(name, open_patiently(origin.address), storage)
        storage.write(PLAN, to_json(plan))
    elif found.fingerprint != plan.fingerprint:
        said = "; ".join(differences(found.identity, what))
        raise RunError(
            f"{storage.url()} holds another run ({said}). "
            "Take another folder, or --overwrite to begin anew"
        )
    if storage.size(CONFIG) is None:
        storage.write(CONFIG, as_yaml(config))
    return found or plan


def _check_not_itself(storage: Storage, origin: Origin) -> None:
    """Raise ConfigError for the source's own folder, whatever way leads there."""
    there = read_plan(storage)
    if there is not None and there.run_id == origin.plan.run_id:
        raise ConfigError(f"{storage.url()}: a run cannot be made of itself: give another folder")


def _copy(name: str, source: Storage, target: Storage) -> None:
    with source.open(name) as file, target.staged(name) as staged:
        try:
            with staged.open("wb") as copy:
                shutil.copyfileobj(file, copy)
        except OSError as error:
            text = f"cannot write {target.url(name)}: {error.strerror or error}"
            raise StorageError(text, passing=is_passing(error)) from error
        target.publish(staged, name)


def _make_setup(storage: Storage, plan: Plan, config: Config, origin: Origin) -> WorkerSetup:
    setup = make_setup(storage, plan, config, partial(RefilterWorker, origin=origin))
    # No device is looked for where one is named.
    model = config.model.model_copy(update={"device": "cpu"})
    return replace(
        setup,
        config=config.model_copy(update={"model": model}),
        metadata={**setup.metadata, "amg.refiltered_from": origin.plan.run_id},
    )


class RefilterWorker:
    """Turns shards of one run into those of another."""

    def __init__(self, setup: WorkerSetup, report: OnProgress, *, origin: Origin) -> None:
        self._setup, self._report, self._origin = setup, report, origin
        self._source, self._storage = open_patiently(origin.address), open_patiently(setup.out)
        self._progress = Progress(attempt="")

    def run(self, task: ShardTask) -> ShardResult:
        """Do a shard, whole.

        Raises StorageError for a storage that keeps failing, ShardError for a source that cannot be
        read or does not hold the planned rows.
        """
        self._progress = Progress(task.attempt)
        rows = self._counted(self._origin.commits[task.shard].file)
        return publish_shard(self._storage, self._setup, task, rows, lambda: self._progress)

    def _counted(self, name: str) -> Iterator[ImageRow]:
        """The new rows of a source's file; once a second the driver hears of them."""
        began = reported = time.monotonic()
        for row in self._refiltered(name):
            yield row
            now = time.monotonic()
            self._progress = replace(self._progress.after(row), busy_s=now - began)
            if now - reported > _REPORT_EVERY_S:
                reported = now
                self._report(self._progress)

    def _refiltered(self, name: str) -> Iterator[ImageRow]:
        source, wanted = self._origin.generator, self._setup.config.generator
        with self._source.open(name) as file:
            for row in read_shard(file, name, candidates=source.keep_candidates):
                yield row if row.status in FAILED else refilter_row(row, source, wanted)


def refilter_row(row: ImageRow, source: GeneratorConfig, wanted: GeneratorConfig) -> ImageRow:
    """The row of an image that was segmented, with other filters; all else stays as it is."""
    assert row.height is not None and row.width is not None
    size_hw = row.height, row.width
    masks, candidates = refilter(row.masks, row.candidates, size_hw, source, wanted)
    return replace(
        row,
        status="ok" if masks else "empty",
        masks=tuple(masks),
        candidates=None if candidates is None else tuple(candidates),
    )
