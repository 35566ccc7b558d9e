"""Embeddings that were kept by one run, in place of images for another."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from amg.config import Config
from amg.errors import ConfigError, RunError, ShardError
from amg.inputs.sources import ImageSource
from amg.records import EmbeddingDtype
from amg.runs.folder import (
    EMBEDDINGS,
    Plan,
    commit_file,
    read_commit,
    read_commits,
    read_plan,
    require_plan,
)
from amg.runs.schema import FAILED
from amg.runs.shards import RowReader
from amg.storage.patient import open_patiently
from amg.storage.retry import read_with_backoff
from amg.storage.stores import Storage
from amg.storage.urls import bare
from pipelines.corpus.prefetch import Ask, LoadedImage, Place
from pipelines.corpus.settings import read_config

_SHARED = ("images_per_shard", "max_image_pixels")


@dataclass(frozen=True)
class KeptEmbeddings:
    """A finished run of embeddings, and the configuration that it was made with."""

    address: str
    plan: Plan
    config: Config

    def configure(self, config: Config) -> Config:
        """The configuration of a run from these: the model is theirs, and so are the shards.

        Raises ConfigError for a key that says otherwise.
        """
        ours, theirs = config.run, self.config.run
        for key in _SHARED:
            if key in ours.model_fields_set and getattr(ours, key) != getattr(theirs, key):
                raise ConfigError(f"run.{key}: the embeddings have {getattr(theirs, key)}")
        shared = {key: getattr(theirs, key) for key in _SHARED}
        given = config.model.model_dump(exclude_unset=True)
        model = {**self.config.model.model_dump(exclude_unset=True), **given}
        return Config(
            model=type(config.model)(**model),
            generator=config.generator,
            run=ours.model_copy(update=shared),
            engine=config.engine,
        )

    def check_model(self, config: Config, weights_sha256: str) -> None:
        """Raise ConfigError for another model than the one that made them; precision may differ."""
        planned = self.plan.identity["model"]
        if weights_sha256 != planned["weights_sha256"]:
            raise ConfigError(
                f"model: the embeddings are of {planned['name']}, weights "
                f"{planned['weights_sha256'][:12]}...; those of {config.model.shown_name} are "
                f"{weights_sha256[:12]}..."
            )
        if config.model.imgsz != planned["imgsz"]:
            theirs = planned["imgsz"] or "the model's own"
            raise ConfigError(f"model.imgsz: the embeddings have {theirs}")

    def check_other(self, storage: Storage) -> None:
        """Raise ConfigError for their own folder as the new run's, whatever way leads there."""
        there = read_plan(storage)
        if there is not None and there.run_id == self.plan.run_id:
            raise ConfigError(
                f"{storage.url()}: a run cannot be made of itself: give another folder"
            )

    def check_planned(self, plan: Plan) -> None:
        """Raise RunError where they are not those that a run was planned with."""
        if self.describe() != plan.identity[EMBEDDINGS]:
            raise RunError(f"{self.address} holds other embeddings than the run was planned with")

    def describe(self) -> dict[str, Any]:
        """What the new plan says of them: which images, model, precision and dtype."""
        return {"fingerprint": self.plan.fingerprint, "dtype": self.plan.embed_dtype}


def open_embeddings(location: str) -> KeptEmbeddings:
    """A finished run of embeddings. Raises ConfigError for another, RunError for no run."""
    storage = open_patiently(location)
    plan = require_plan(storage)
    where = storage.url()
    if plan.embed_dtype is None:
        raise ConfigError(f"embeddings: {where} is a run of masks: `amg embed` makes embeddings")
    n_missing = plan.n_shards - len(read_commits(storage, plan))
    if n_missing:
        missing = f"{n_missing} of {plan.n_shards} shards"
        raise ConfigError(f"embeddings: {where}: {missing} are not committed: finish it first")
    return KeptEmbeddings(bare(storage.address), plan, read_config(storage))


def embedding_bytes(config: Config, dtype: EmbeddingDtype) -> int:
    """What is to be kept of an image. Raises as `load_model` for a model that there is not."""
    from amg.generate.kept import embedding_bytes as size_of  # noqa: PLC0415 - torch
    from amg.models.zoo.load import packed_shapes  # noqa: PLC0415

    model = config.model
    return size_of(packed_shapes(model.name, model.checkpoint, model.imgsz), dtype)


@contextmanager
def open_shard(embeddings: str, shard: int) -> Iterator[RowReader]:
    """The rows of a run's shard, as it is committed now: failed ones may have been done again.

    Raises RunError where it is not committed, ShardError for what is no shard, StorageError.
    """
    storage = open_patiently(embeddings)
    commit = read_commit(storage, require_plan(storage), commit_file(shard))
    if commit is None:
        raise RunError(f"{storage.url(commit_file(shard))} is gone: the embeddings are not whole")
    with (
        storage.open(commit.file) as file,
        closing(RowReader(file, storage.url(commit.file))) as rows,
    ):
        yield rows


def load_embedding(
    index: int, source: ImageSource, place: Place, *, stored: RowReader, ask: Ask
) -> LoadedImage:
    """What was kept of an image, in place of it; what has failed then fails for the same reason.

    Raises ShardError for a file that does not hold the planned rows, StorageError.
    """
    started = time.perf_counter()
    row = read_with_backoff(lambda: stored.row(index))
    if row.image_id != source.image_id:
        raise ShardError(f"{stored.name}: {source.image_id!r} is planned, found {row.image_id!r}")
    kept = row.embedding
    row = replace(row, embedding=None, encode_s=0.0, masks_s=0.0)
    if row.status in FAILED:
        place.leave()
        return LoadedImage(index, replace(row, decode_s=time.perf_counter() - started), None)
    if kept is None:
        raise ShardError(f"{stored.name}: {source.image_id!r} has no embedding")
    question = ask(index, kept)
    place.charge(0 if question.image is None else question.image.nbytes)
    decode_s = time.perf_counter() - started - place.waited_s
    row = replace(row, status="empty", decode_s=decode_s, prompt_errors=question.errors)
    return LoadedImage(index, row, question.image, question.prompts)
