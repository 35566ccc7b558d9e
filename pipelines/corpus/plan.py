"""Planning a run: which images, in which shards, and all that decides their rows.

The plan is made once. A run that is taken up again lists its inputs anew and compares: a folder
takes no work of another fingerprint.
"""

import hashlib
import json
import logging
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from amg.config import Config, GeneratorConfig
from amg.errors import ConfigError, RunError, StorageError
from amg.inputs.sources import ImageSource, SourceOptions, list_sources
from amg.models.zoo.registry import locate_weights
from amg.runs.folder import (
    COMMITS,
    CONFIG,
    EVENTS,
    INPUTS,
    PLAN,
    REFILTERED,
    REPORT,
    REPORT_PAGES,
    SUCCESS,
    Plan,
    list_run_files,
    read_plan,
    to_json,
)
from amg.runs.planned import INPUTS_SCHEMA
from amg.runs.schema import SCHEMA_VERSION
from amg.storage.access import is_passing
from amg.storage.stores import Storage

logger = logging.getLogger(__name__)
_BATCH = 32_768
_SHOWN = 5
_NOT_DECISIVE = {"memory_budget", "points_per_batch", "encoder_batch_size"}  # speed and memory only


@dataclass(frozen=True)
class Job:
    """What a user asks for: which images, and what to do with them."""

    inputs: Sequence[str]
    config: Config
    options: SourceOptions = SourceOptions()
    limit: int | None = None

    def sources(self) -> Iterator[ImageSource]:
        """The images, in order."""
        for n, source in enumerate(list_sources(self.inputs, self.options, REPORT_PAGES)):
            if n == self.limit:
                return
            yield source


def resolve(config: Config) -> tuple[Config, str]:
    """The configuration with the model's own defaults, and the sha256 of its weights.

    Raises ConfigError for an unknown model, CheckpointError if the weights cannot be had.
    """
    spec, weights = locate_weights(config.model.name, config.model.checkpoint)
    generator = config.generator.for_model(spec.generator_defaults)
    return config.model_copy(update={"generator": generator}), weights.sha256


def identity(config: Config, weights_sha256: str, inputs_sha256: str) -> dict[str, Any]:
    """All that decides a run's rows and their places."""
    return {
        "schema_version": SCHEMA_VERSION,
        "inputs_sha256": inputs_sha256,
        "model": {
            "name": config.model.name,
            "imgsz": config.model.imgsz,
            "precision": config.model.precision,
            "weights_sha256": weights_sha256,
        },
        "generator": decisive(config.generator),
        "run": {
            "images_per_shard": config.run.images_per_shard,
            "max_image_pixels": config.run.max_image_pixels,
        },
    }


def decisive(generator: GeneratorConfig) -> dict[str, Any]:
    """The parameters that decide which masks there are."""
    return generator.model_dump(mode="json", exclude=_NOT_DECISIVE)


def fingerprint(identity_: Mapping[str, Any]) -> str:
    """The sha256 of an identity."""
    return hashlib.sha256(json.dumps(identity_, sort_keys=True).encode()).hexdigest()


@dataclass(slots=True)
class Listing:
    """What streaming over the inputs adds up to; `n_unknown` images are of unknown size."""

    n_images: int = 0
    n_bytes: int = 0
    n_unknown: int = 0
    sha256: str = ""
    has_duplicates: bool = False


def prepare(job: Job, storage: Storage) -> tuple[Plan, Config]:
    """The plan of a folder, made now or found there and equal to what the job asks for.

    Raises ConfigError for inputs, model or duplicate ids, RunError for a folder with another run,
    naming what differs.
    """
    config, weights_sha256 = resolve(job.config)
    found = read_plan(storage)
    if found is not None:
        listing = Listing()
        for _ in _listed(job.sources(), listing):
            pass
        _compare(found, identity(config, weights_sha256, listing.sha256), listing, job, storage)
        if storage.size(CONFIG) is None:  # the planner was killed in between
            storage.write(CONFIG, as_yaml(config))
        return found, config
    if storage.size(CONFIG) is not None:
        raise RunError(f"{storage.url(CONFIG)} is there, and no run wrote it: take another folder")
    listing = _write_inputs(job.sources(), storage)
    what = identity(config, weights_sha256, listing.sha256)
    plan = Plan(
        run_id=uuid.uuid4().hex[:12],
        fingerprint=fingerprint(what),
        identity=what,
        n_images=listing.n_images,
        n_bytes=listing.n_bytes,
        images_per_shard=config.run.images_per_shard,
    )
    storage.write(PLAN, to_json(plan))
    storage.write(CONFIG, as_yaml(config))
    return plan, config


def as_yaml(config: Config) -> bytes:
    """A configuration as its file."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False).encode()


def survey(job: Job) -> tuple[Listing, Config]:
    """List the inputs and check what a run would need, writing nothing. Raises as `prepare`."""
    config, _ = resolve(job.config)
    listing, ids = Listing(), []
    for table in _listed(map(_with_size, job.sources()), listing):
        ids.append(table.column("image_id").combine_chunks())
    if listing.has_duplicates:
        raise _duplicates(pa.chunked_array(ids))
    return listing, config


def _with_size(source: ImageSource) -> ImageSource:
    """Ask this machine for a size that the listing left out."""
    if source.size is not None or not source.path.startswith(b"/") or source.row is not None:
        return source
    with suppress(OSError):
        return replace(source, size=Path(os.fsdecode(source.path)).stat().st_size)
    return source


def _listed(sources: Iterable[ImageSource], listing: Listing) -> Iterator[pa.Table]:
    """The sources as tables of INPUTS_SCHEMA; `listing` is complete at the end."""
    digest = hashlib.sha256()
    hashes: list[np.ndarray] = []
    iterator = iter(sources)
    while batch := list(islice(iterator, _BATCH)):
        for source in batch:
            member = source.size if source.offset is not None else None
            where = (source.offset, member, source.column, source.row)
            for part in (source.image_id.encode(), source.path, repr(where).encode()):
                digest.update(b"%d " % len(part) + part)
        hashes.append(np.fromiter((hash(s.image_id) for s in batch), np.int64, len(batch)))
        listing.n_images += len(batch)
        listing.n_bytes += sum(source.size or 0 for source in batch)
        listing.n_unknown += sum(source.size is None for source in batch)
        arrays = [
            pa.array([getattr(source, field.name) for source in batch], type=field.type)
            for field in INPUTS_SCHEMA
        ]
        yield pa.Table.from_arrays(arrays, schema=INPUTS_SCHEMA)
    listing.sha256 = digest.hexdigest()
    if hashes:
        every = np.sort(np.concatenate(hashes))
        listing.has_duplicates = bool((every[1:] == every[:-1]).any())


def _write_inputs(sources: Iterable[ImageSource], storage: Storage) -> Listing:
    listing = Listing()
    with storage.staged(INPUTS) as staged:
        try:
            with pq.ParquetWriter(staged, INPUTS_SCHEMA, compression="zstd") as writer:
                for table in _listed(sources, listing):
                    writer.write_table(table)
        except OSError as error:
            text = f"cannot write {storage.url(INPUTS)}: {error.strerror or error}"
            raise StorageError(text, passing=is_passing(error)) from error
        if listing.has_duplicates:
            raise _duplicates(pq.read_table(staged, columns=["image_id"]).column("image_id"))
        storage.publish(staged, INPUTS)
    return listing


def _duplicates(ids: pa.ChunkedArray) -> Exception:
    """The error that names the ids that occur more than once."""
    counted = pa.table({"id": ids}).group_by("id").aggregate([("id", "count")])
    twice = counted.filter(pc.field("id_count") > 1).column("id").to_pylist()
    shown = ", ".join(repr(image_id) for image_id in sorted(twice)[:_SHOWN])
    return ConfigError(
        f"inputs: {len(twice)} image ids occur more than once: {shown}; give the folder above, "
        "or a column of unique ids"
    )


def check_config(plan: Plan, config: Config) -> None:
    """Raise RunError if rows of this configuration would not be those of the plan."""
    planned = plan.identity
    if REFILTERED in planned:
        raise RunError("made by refilter: do this to the run that it was made from, then refilter")
    now = identity(config, planned["model"]["weights_sha256"], planned["inputs_sha256"])
    if fingerprint(now) != plan.fingerprint:
        raise RunError(f"not the run that was planned ({'; '.join(differences(planned, now))})")


def differences(planned: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two identities, but for the inputs: a line each."""
    return [
        f"{key}: {_short(was)} planned, {_short(is_)} now"
        for key, was, is_ in _differences(planned, now)
        if key != "inputs_sha256"
    ]


def _compare(
    plan: Plan, now: Mapping[str, Any], listing: Listing, job: Job, storage: Storage
) -> None:
    """Raise RunError with all that differs between a plan and what is asked for now."""
    if fingerprint(now) == plan.fingerprint:
        return
    said = differences(plan.identity, now)
    if now["inputs_sha256"] != plan.identity.get("inputs_sha256"):
        said.append(_changed_inputs(plan, listing, job, storage))
    raise RunError(
        f"{storage.url()} holds another run ({'; '.join(said)}). "
        "Take another folder, or --overwrite to begin anew"
    )


def _differences(
    was: Mapping[str, Any], now: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    for key in sorted({*was, *now}):
        before, after = was.get(key), now.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key}", before, after


def _changed_inputs(plan: Plan, listing: Listing, job: Job, storage: Storage) -> str:
    with storage.open(INPUTS) as file:
        table = pq.ParquetFile(file).read(["image_id"], use_threads=False)
    planned = set(table.column(0).to_pylist())
    now = {source.image_id for source in job.sources()}
    new, gone = sorted(now - planned), sorted(planned - now)
    counts = f"inputs: {plan.n_images} images planned, {listing.n_images} now"
    for what, ids in (("new", new), ("gone", gone)):
        if ids:
            counts += f", {len(ids)} {what} ({', '.join(map(repr, ids[:_SHOWN]))})"
    return counts


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 24 else f"{text[:20]}..."


def clear(storage: Storage) -> None:
    """Begin anew. Only what runs write is deleted: the folder may hold more.

    Commits go first, so that none is left over for another plan; the plan goes last, so that a
    clearing that was broken off is known for one.
    """
    files = list_run_files(storage)
    storage.delete(name for name in files if name.startswith(COMMITS))
    storage.delete(files)
    if storage.size(PLAN) is not None:
        storage.delete([SUCCESS, REPORT, EVENTS, INPUTS, CONFIG])
        storage.delete([PLAN])
