"""Planning a run: which images, in which shards, and all that decides their rows.

The plan is made once. A run that is taken up again lists its inputs anew and compares: a folder
takes no work of another fingerprint.
"""

import hashlib
import json
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from itertools import chain
from typing import Any

import pyarrow.parquet as pq

from amg.config import Config
from amg.errors import ConfigError, RunError, StorageError
from amg.prompts.files import PromptSource
from amg.runs.folder import (
    COMMITS,
    CONFIG,
    EMBED,
    EMBEDDINGS,
    EVENTS,
    INPUTS,
    PLAN,
    PROMPTS,
    REFILTERED,
    REPORT,
    SUCCESS,
    Plan,
    list_run_files,
    read_plan,
    to_json,
)
from amg.runs.planned import INPUTS_SCHEMA, PlannedInputs, SourceTable, to_table
from amg.runs.prompts import open_prompts
from amg.runs.schema import SCHEMA_VERSION
from amg.runs.spool import CompleteInputs, SourceSpool
from amg.storage.access import is_passing
from amg.storage.stores import Storage
from pipelines.corpus.duplicates import refuse_duplicates
from pipelines.corpus.embeddings import KeptEmbeddings, embedding_bytes, open_embeddings
from pipelines.corpus.listing import Job, Listing, hash_planned, list_inputs, measure
from pipelines.corpus.prompts import hash_prompts, list_prompts, write_prompts
from pipelines.corpus.settings import as_yaml, decisive, resolve

_SHOWN = 5


def identity(
    config: Config,
    weights_sha256: str,
    inputs_sha256: str,
    prompts_sha256: str | None = None,
    kind: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """All that decides a run's rows and their places.

    kind: where it is of embeddings, or its masks are made of such: `EMBED`, `EMBEDDINGS`.
    """
    kind = kind or {}
    asked = {"sha256": prompts_sha256, "multimask": config.run.multimask}
    return {
        "schema_version": SCHEMA_VERSION,
        "inputs_sha256": inputs_sha256,
        "model": {
            "name": config.model.shown_name,
            "imgsz": config.model.imgsz,
            "precision": config.model.precision,
            "weights_sha256": weights_sha256,
        },
        "generator": {} if EMBED in kind else decisive(config.generator),
        "run": {
            "images_per_shard": config.run.images_per_shard,
            "max_image_pixels": config.run.max_image_pixels,
        },
        **({} if prompts_sha256 is None else {"prompts": asked}),
        **kind,
    }


def fingerprint(identity_: Mapping[str, Any]) -> str:
    """The sha256 of an identity."""
    return hashlib.sha256(json.dumps(identity_, sort_keys=True).encode()).hexdigest()


def prepare(
    job: Job,
    storage: Storage,
    complete: CompleteInputs | None = None,
    *,
    overwrite: bool = False,
) -> tuple[Plan, Config]:
    """The plan of a folder, made now or found there and equal to what the job asks for.

    complete: takes what workers need of the inputs and the folder must not hold. overwrite: make a
    new plan, and delete the run that is there when all that the new one needs is.

    Raises ConfigError for inputs, model or duplicate ids, RunError for a folder with another run,
    naming what differs.
    """
    config, weights_sha256, kept = _settle(job)
    kind = _kind(job, kept)
    if kept is not None:
        kept.check_other(storage)
    found = None if overwrite else read_plan(storage)
    prompts = _open_prompts(job)
    if found is not None:
        listing = _list_again(job, complete)
        asked = None if prompts is None else hash_prompts(prompts)
        now = identity(config, weights_sha256, listing.sha256, asked, kind)
        _compare(found, now, listing, job, storage)
        if storage.size(CONFIG) is None:  # the planner was killed in between
            storage.write(CONFIG, as_yaml(config))
        return found, config
    if storage.size(CONFIG) is not None and storage.size(PLAN) is None:
        raise RunError(f"{storage.url(CONFIG)} is there, and no run wrote it: take another folder")
    listing = _write_inputs(job, storage, complete, prompts, overwrite=overwrite)
    asked = listing.asked
    asked_sha256 = None if asked is None else asked.sha256
    what = identity(config, weights_sha256, listing.sha256, asked_sha256, kind)
    plan = Plan(
        run_id=uuid.uuid4().hex[:12],
        fingerprint=fingerprint(what),
        identity=what,
        n_images=listing.n_images,
        n_bytes=listing.n_bytes,
        images_per_shard=config.run.images_per_shard,
        has_secrets=listing.has_secrets,
        prompts=None if asked is None else asked.counts(listing.n_images),
        categories={} if asked is None else asked.categories,
        has_uncategorised=asked is not None and asked.has_uncategorised,
        embedding_bytes=None if job.embed is None else embedding_bytes(config, job.embed),
        embeddings=None if kept is None else kept.address,
    )
    storage.write(PLAN, to_json(plan))
    storage.write(CONFIG, as_yaml(config))
    return plan, config


def take_inputs(job: Job, plan: Plan, storage: Storage, complete: CompleteInputs) -> None:
    """List the inputs of a plan anew, for what its folder does not hold of them.

    Raises RunError if they are not those of the plan, else as `list_sources`.
    """
    listing = _list_again(job, complete)
    now = {**plan.identity, "inputs_sha256": listing.sha256}
    _compare(plan, now, listing, job, storage)


def _settle(job: Job) -> tuple[Config, str, KeptEmbeddings | None]:
    """What `resolve` gives, and the embeddings that stand for the images. Raises ConfigError."""
    kept = None if job.embeddings is None else open_embeddings(job.embeddings)
    config, weights_sha256 = resolve(job.config if kept is None else kept.configure(job.config))
    if kept is not None:
        kept.check_model(config, weights_sha256)
    is_grid = job.prompts is None
    if config.generator.crop_n_layers and is_grid and not (job.embed is kept is None):
        raise ConfigError(
            "generator.crop_n_layers: an embedding is of a whole image, and crops have none"
        )
    return config, weights_sha256, kept


def _kind(job: Job, kept: KeptEmbeddings | None) -> dict[str, Any]:
    """What its identity says of embeddings."""
    if job.embed is not None:
        return {EMBED: {"dtype": job.embed}}
    return {} if kept is None else {EMBEDDINGS: kept.describe()}


def _open_prompts(job: Job) -> PromptSource | None:
    """Raises ConfigError for prompts that are not there, and for keys that would do nothing."""
    if job.prompts is None:
        if job.config.run.multimask:
            raise ConfigError("run.multimask: of prompts, and there are none")
        return None
    if job.config.generator.keep_candidates:
        raise ConfigError("generator.keep_candidates: of prompts no NMS chooses among masks")
    return open_prompts(job.prompts)


def _list_again(job: Job, complete: CompleteInputs | None) -> Listing:
    listing = Listing()
    for _ in list_inputs(job, listing, complete):
        pass
    return listing


def survey(job: Job) -> tuple[Listing, Config]:
    """List the inputs and check what a run would need, writing nothing. Raises as `prepare`."""
    config, _, _ = _settle(job)
    prompts = _open_prompts(job)
    listing, n_bytes, n_unknown = Listing(), 0, 0
    with SourceSpool() as spool:
        for batch in list_inputs(job, listing):
            sizes = [measure(source).size for source in batch]
            n_bytes += sum(size or 0 for size in sizes)
            n_unknown += sizes.count(None)
            if prompts is not None:
                spool.write(batch)
        listing.n_bytes, listing.n_unknown = n_bytes, n_unknown
        refuse_duplicates(listing.id_hashes, lambda: _list_ids(job))
        if prompts is not None:
            listing.asked = list_prompts(prompts, spool, listing.n_images)
    return listing, config


def _write_inputs(
    job: Job,
    storage: Storage,
    complete: CompleteInputs | None,
    prompts: PromptSource | None,
    *,
    overwrite: bool,
) -> Listing:
    """Write what is to be done, images and prompts, and only then delete what was there."""
    listing = Listing()
    with storage.staged(INPUTS) as staged, storage.staged(PROMPTS) as asked:
        try:
            with pq.ParquetWriter(staged, INPUTS_SCHEMA, compression="zstd") as writer:
                for batch in list_inputs(job, listing, complete):
                    writer.write_table(to_table(batch))
        except OSError as error:
            text = f"cannot write {storage.url(INPUTS)}: {error.strerror or error}"
            raise StorageError(text, passing=is_passing(error)) from error
        with staged.open("rb") as file:
            written = SourceTable(file, storage.url(INPUTS))
            refuse_duplicates(listing.id_hashes, written.ids)
            if prompts is not None:
                where = storage.url(PROMPTS)
                listing.asked = write_prompts(asked, where, prompts, written, listing.n_images)
        if overwrite:
            clear(storage, but=(staged.name, asked.name))
        if prompts is not None:
            storage.publish(asked, PROMPTS)
        storage.publish(staged, INPUTS)
    return listing


def _list_ids(job: Job) -> Iterator[list[str]]:
    return ([source.image_id for source in batch] for batch in list_inputs(job, Listing()))


def check_config(plan: Plan, config: Config) -> None:
    """Raise RunError if rows of this configuration would not be those of the plan."""
    planned = plan.identity
    if REFILTERED in planned:
        raise RunError("made by refilter: do this to the run that it was made from, then refilter")
    asked = planned.get("prompts", {}).get("sha256")
    weights, inputs = planned["model"]["weights_sha256"], planned["inputs_sha256"]
    kind = {key: planned[key] for key in (EMBED, EMBEDDINGS) if key in planned}
    now = identity(config, weights, inputs, asked, kind)
    if fingerprint(now) != plan.fingerprint:
        raise RunError(f"not the run that was planned ({'; '.join(differences(planned, now))})")


def differences(planned: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two identities, but for the inputs: a line each."""
    was, is_ = ("embeddings" if EMBED in each else "masks" for each in (planned, now))
    if was != is_:
        return [f"{was} planned, {is_} now"]
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
    planned_sha256 = plan.identity.get("inputs_sha256"), _hash_of_today(plan, listing, storage)
    if now["inputs_sha256"] not in planned_sha256:
        said.append(_changed_inputs(plan, listing, job, storage))
    if not said:
        return
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


def _hash_of_today(plan: Plan, listing: Listing, storage: Storage) -> str | None:
    """What the inputs of a plan hash to by today's rule: older plans hashed complete URLs."""
    if plan.n_images != listing.n_images:
        return None
    with closing(PlannedInputs(storage)) as inputs:
        return hash_planned(inputs.batches())


def _changed_inputs(plan: Plan, listing: Listing, job: Job, storage: Storage) -> str:
    with closing(PlannedInputs(storage)) as inputs:
        planned = set(inputs.ids())
        now = {source.image_id for source in job.sources()}
        new, gone = sorted(now - planned), sorted(planned - now)
        counts = f"inputs: {plan.n_images} images planned, {listing.n_images} now"
        for what, ids in (("new", new), ("gone", gone)):
            if ids:
                counts += f", {len(ids)} {what} ({', '.join(map(repr, ids[:_SHOWN]))})"
        return counts if new or gone else counts + _first_change(inputs, job)


def _first_change(inputs: PlannedInputs, job: Job) -> str:
    """The first place where the same ids are not in the same places."""
    planned = chain.from_iterable(inputs.batches())
    now = chain.from_iterable(list_inputs(job, Listing()))
    for was, is_ in zip(planned, now, strict=False):
        if (was.image_id, was.uri) != (is_.image_id, is_.uri):
            return (
                f", in another order or other places: first {was.image_id!r} at {was.uri!r} "
                f"planned, {is_.image_id!r} at {is_.uri!r} now (--remap OLD=NEW if they moved)"
            )
    return ", in other places of the same files"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 24 else f"{text[:20]}..."


def clear(storage: Storage, but: Collection[str] = ()) -> None:
    """Begin anew. Only what runs write is deleted: the folder may hold more, and the files `but`.

    Commits go first, so that none is left over for another plan; the plan goes last, so that a
    clearing that was broken off is known for one.
    """
    files = [name for name in list_run_files(storage) if name not in but]
    storage.delete(name for name in files if name.startswith(COMMITS))
    storage.delete(files)
    if storage.size(PLAN) is not None:
        storage.delete([SUCCESS, REPORT, EVENTS, INPUTS, PROMPTS, CONFIG])
        storage.delete([PLAN])
