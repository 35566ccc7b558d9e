"""Planning the prompts of a run: read, matched to the planned images, and kept in their order."""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from amg.errors import ConfigError, StorageError
from amg.inputs.sources import ImageSource
from amg.prompts.columns import PromptsHash
from amg.prompts.files import PromptSource
from amg.prompts.matching import NOWHERE, Matching, Planned, agrees
from amg.prompts.ordering import PromptOrder
from amg.runs.folder import PromptCounts
from amg.runs.prompts import PROMPTS_SCHEMA
from amg.storage.access import is_passing

pc: Any = pyarrow.compute  # its functions are made when it is imported

logger = logging.getLogger(__name__)
_SHOWN = 3
_ROWS_AT_ONCE = 4096

Sink = Callable[[pa.Table], object]
"""Takes prompts of PROMPTS_SCHEMA by rising rows."""


@dataclass(slots=True)
class PromptListing:
    """What reading and matching prompts adds up to.

    `n_prompts` have an image, `n_strangers` have none among the planned ones; `strangers` are some
    of the latters' keys. `categories` have the numbers of their source, or else new ones.
    """

    sha256: str = ""
    n_prompts: int = 0
    n_images: int = 0
    n_strangers: int = 0
    strangers: list[str] = field(default_factory=list)
    categories: dict[str, int] = field(default_factory=dict)
    has_uncategorised: bool = False

    def counts(self, n_images: int) -> PromptCounts:
        """For people, of so many planned images."""
        without = n_images - self.n_images
        return PromptCounts(self.n_prompts, self.n_strangers, self.n_images, without)

    def add_strangers(self, keys: pa.Array) -> None:
        """Count prompts without a planned image."""
        self.n_strangers += len(keys)
        if len(self.strangers) < _SHOWN:
            new = keys.slice(0, 1000).unique().to_pylist()
            self.strangers = list(dict.fromkeys([*self.strangers, *new]))[:_SHOWN]


def hash_prompts(source: PromptSource) -> str:
    """What identifies prompts, without a look at images. Raises as the source."""
    digest = PromptsHash()
    for batch in source.read():
        digest.add(batch)
    return digest.sha256()


def write_prompts(
    path: Path, where: str, source: PromptSource, planned: Planned, n_images: int
) -> PromptListing:
    """Write prompts.parquet at a path, called `where`. Raises as `list_prompts`, StorageError."""
    try:
        with pq.ParquetWriter(path, PROMPTS_SCHEMA, compression="zstd") as writer:
            return list_prompts(source, planned, n_images, writer.write_table)
    except OSError as error:
        text = f"cannot write {where}: {error.strerror or error}"
        raise StorageError(text, passing=is_passing(error)) from error


def list_prompts(
    source: PromptSource, planned: Planned, n_images: int, sink: Sink = lambda _: None
) -> PromptListing:
    """Read prompts, find their images, and give them to `sink` in the order of these.

    Raises ConfigError for prompts that cannot be read, a key that may mean several images, two that
    mean the same, and where no prompt has an image; StorageError.
    """
    listing, digest, matching = PromptListing(), PromptsHash(), Matching(planned)
    names = set[str | None]()
    with PromptOrder(n_images) as order:
        for batch in source.read():
            digest.add(batch)
            names.update(batch.column("category").unique().to_pylist())
            rows = matching.rows_of(batch.column("image"))
            is_found = rows != NOWHERE
            listing.add_strangers(batch.column("image").filter(pa.array(~is_found)))
            order.add(batch.filter(pa.array(is_found)), rows[is_found])
        for chunk in order.chunks():
            kept = _without_strangers(chunk, planned, listing)
            listing.n_prompts += kept.num_rows
            listing.n_images += len(np.unique(kept.column("row").to_numpy()))
            sink(kept.select(PROMPTS_SCHEMA.names).cast(PROMPTS_SCHEMA))
    listing.sha256 = digest.sha256()
    listing.has_uncategorised = None in names
    listing.categories = number_categories(names - {None}, source.categories)
    _say(listing, planned)
    return listing


def number_categories(names: Collection[str | None], given: Mapping[str, int]) -> dict[str, int]:
    """Numbers for names of classes: those that are given, or that names are themselves, or new."""
    numbers = dict(given)
    new = sorted(name for name in names if name is not None and name not in numbers)
    taken = set(numbers.values())
    if all(name.isascii() and name.isdecimal() and int(name) not in taken for name in new):
        return numbers | {name: int(name) for name in sorted(new, key=int)}
    start = max(numbers.values(), default=0) + 1
    return numbers | {name: start + i for i, name in enumerate(new)}


def _without_strangers(chunk: pa.Table, planned: Planned, listing: PromptListing) -> pa.Table:
    """The prompts whose keys truly mean their images; others had names of equal end or hash.

    Raises ConfigError where two keys mean one image.
    """
    keys = chunk.column("image").combine_chunks().dictionary_encode()
    names, rows = keys.dictionary.to_pylist(), chunk.column("row").to_numpy()
    pairs, places = np.unique(rows * len(names) + keys.indices.to_numpy(), return_inverse=True)
    fits = np.zeros(len(pairs), bool)
    before: tuple[int, str] | None = None
    for i, (row, image) in enumerate(_images_of(pairs // max(1, len(names)), planned)):
        key = names[pairs[i] % len(names)]
        fits[i] = agrees(key, image)
        if fits[i] and before is not None and before[0] == row:
            raise ConfigError(
                f"prompts: {before[1]!r} and {key!r} both mean the image {image.image_id!r}"
            )
        before = (row, key) if fits[i] else before
    kept = pa.array(fits[places])
    listing.add_strangers(chunk.column("image").filter(pc.invert(kept)))
    return chunk.filter(kept)


def _images_of(rows: np.ndarray, planned: Planned) -> Iterator[tuple[int, ImageSource]]:
    """Each of the rows, which rise, and its image."""
    block, sources = range(0), list[ImageSource]()
    for i, row in enumerate(rows.tolist()):
        if row not in block:
            end = rows[min(len(rows), i + _ROWS_AT_ONCE) - 1]
            block = range(row, min(int(end) + 1, row + _ROWS_AT_ONCE))
            sources = planned.read(block)
        yield row, sources[row - block.start]


def _say(listing: PromptListing, planned: Planned) -> None:
    """Raise ConfigError where there is nothing to ask; warn of prompts that have no image."""
    about = ", ".join(map(repr, listing.strangers))
    if not listing.n_prompts:
        if not listing.n_strangers:
            raise ConfigError("prompts: there are none")
        first = ", ".join(repr(source.image_id) for source in planned.read(range(1)))
        raise ConfigError(
            f"prompts: none of {listing.n_strangers} is about a planned image: "
            f"they name {about}; the first image is {first}"
        )
    if listing.n_strangers:
        logger.warning(
            "%d prompts are about no planned image, such as %s", listing.n_strangers, about
        )
