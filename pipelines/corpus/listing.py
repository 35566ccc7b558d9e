"""Listing the inputs of a run: what identifies them, and what of them a run's folder may hold."""

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np

from amg.config import Config
from amg.errors import ConfigError
from amg.inputs.allowed import settle
from amg.inputs.ids import hash_ids
from amg.inputs.moved import Move, planned_location, present_location, with_planned_names
from amg.inputs.sources import ImageSource, SourceOptions, list_sources
from amg.records import EmbeddingDtype, check_dtype
from amg.runs.folder import REPORT_PAGES
from amg.runs.planned import PlannedInputs
from amg.runs.spool import CompleteInputs
from amg.storage.patient import open_patiently
from amg.storage.urls import as_sent, bare, from_bytes, to_bytes
from pipelines.corpus import duplicates
from pipelines.corpus.prompts import PromptListing

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What a user asks for: which images, what to do with them, and what to ask of them."""

    inputs: Sequence[str]
    config: Config
    options: SourceOptions = SourceOptions()
    limit: int | None = None
    moves: Sequence[Move] = ()
    prompts: str | None = None
    embed: EmbeddingDtype | None = None
    """Embeddings are made, and no masks."""
    embeddings: str | None = None
    """The run of embeddings whose images these are, in place of `inputs`."""

    def sources(self, listing: "Listing | None" = None) -> Iterator[ImageSource]:
        """The images, in order, with the names that the plan has, and where they are listed now."""
        if self.embeddings is not None:
            yield from planned_sources(self.embeddings)
            return
        run = self.config.run
        listed = list_sources(self.inputs, self.options, REPORT_PAGES, settle(run.allow))
        named: Iterator[ImageSource] = islice(listed, self.limit)
        if self.moves:
            named = (with_planned_names(source, self.moves) for source in named)
        yield from duplicates.distinct(named, run.on_duplicate, (listing or Listing()).count_later)


def check_job(job: Job) -> None:
    """Raise ConfigError for what contradicts itself, before anything is looked at."""
    if job.embed is not None:
        check_dtype(job.embed)
        for name in ("prompts", "embeddings"):
            if getattr(job, name) is not None:
                raise ConfigError(f"{name}: of masks, and embeddings are to be made")
    said = [job.inputs, job.limit, job.moves, job.options != SourceOptions()]
    if job.embeddings is not None and any(said):
        raise ConfigError("inputs: the embeddings have theirs; give no inputs, and nothing of them")


def planned_sources(run: str) -> Iterator[ImageSource]:
    """The images of a run, in order."""
    with closing(PlannedInputs(open_patiently(run))) as inputs:
        for batch in inputs.batches():
            yield from batch


@dataclass(slots=True)
class Listing:
    """What streaming over the inputs adds up to.

    `n_unknown` images are of unknown size, `n_later` had an id that was there before. `id_hashes`
    are sorted. `asked` is of the prompts, where there are any.
    """

    n_images: int = 0
    n_bytes: int = 0
    n_unknown: int = 0
    n_later: int = 0
    sha256: str = ""
    has_secrets: bool = False
    asked: PromptListing | None = None
    id_hashes: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))

    def count_later(self, n: int) -> None:
        """Take note of how many have an id that was there before."""
        self.n_later = n


class InputsHash:
    """What identifies a list of inputs: ids, and places without what is secret."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, source: ImageSource) -> None:
        """Add one as the plan has it."""
        member = source.size if source.offset is not None else None
        where = (source.offset, member, source.column, source.row)
        for part in (source.image_id.encode(), source.path, repr(where).encode()):
            self._digest.update(b"%d " % len(part) + part)

    def sha256(self) -> str:
        """The hash of all that were added, in order."""
        return self._digest.hexdigest()


def as_planned(source: ImageSource, moves: Sequence[Move] = ()) -> ImageSource:
    """The source as a run's folder holds it: where it was planned, without secrets."""
    path = source.path
    is_plain = path[:1] == b"/" or not (b"?" in path or b"@" in path or b"#" in path)
    if is_plain and not moves:
        return source
    location = from_bytes(path)
    is_withheld = bare(location) != as_sent(location)
    kept = bare(planned_location(location, moves) if moves else location)
    if to_bytes(kept) == path:
        return source
    return replace(source, path=to_bytes(kept), withheld=is_withheld)


def _present(source: ImageSource, moves: Sequence[Move]) -> ImageSource:
    """The source where its bytes are now."""
    if not moves:
        return source
    path = to_bytes(present_location(from_bytes(source.path), moves))
    return source if path == source.path else replace(source, path=path)


def list_inputs(
    job: Job, listing: Listing, complete: CompleteInputs | None = None
) -> Iterator[list[ImageSource]]:
    """The images as they are planned, in parts; `listing` is complete at the end.

    complete: takes what workers need beyond that. Raises as `list_sources`, StorageError.
    """
    digest = InputsHash()
    hashes: list[np.ndarray] = []
    sources = job.sources(listing)
    while present := list(islice(sources, duplicates.BATCH)):
        planned = [as_planned(source, job.moves) for source in present]
        if complete is not None:
            complete.add(listing.n_images, planned, [_present(s, job.moves) for s in present])
        for source in planned:
            digest.add(source)
        hashes.append(hash_ids([source.image_id for source in planned]))
        listing.n_images += len(planned)
        listing.n_bytes += sum(source.size or 0 for source in planned)
        listing.n_unknown += sum(source.size is None for source in planned)
        listing.has_secrets |= any(source.withheld for source in planned)
        yield planned
    listing.sha256 = digest.sha256()
    if hashes:
        listing.id_hashes = np.sort(np.concatenate(hashes))
    if listing.n_later:
        what = "left out" if job.config.run.on_duplicate == "skip" else "numbered"
        logger.warning("%d images have an id that was there before: %s", listing.n_later, what)


def measure(source: ImageSource) -> ImageSource:
    """Ask this machine for a size that the listing left out."""
    if source.size is not None or not source.path.startswith(b"/") or source.row is not None:
        return source
    with suppress(OSError):
        return replace(source, size=Path(os.fsdecode(source.path)).stat().st_size)
    return source


def hash_planned(batches: Iterable[list[ImageSource]]) -> str:
    """The hash of inputs that were planned, by the rule of today.

    Plans made before hashes left out secrets, and folders that hold them, are of the same inputs.
    """
    digest = InputsHash()
    for batch in batches:
        for source in batch:
            digest.add(as_planned(source))
    return digest.sha256()
