"""From a location to prompts, by what is there."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from amg.errors import AmgError, ConfigError, ImageError
from amg.inputs.tables import TABLE_SUFFIXES
from amg.prompts.coco import is_object, read_annotations, read_header, read_lines, read_results
from amg.prompts.tables import read_table
from amg.prompts.yolo import read_labels, read_names
from amg.storage.urls import absolute, local_path, scheme_of, shown

_LINES = (".jsonl", ".ndjson")
_TABLES = (*TABLE_SUFFIXES, ".csv")


@dataclass(frozen=True, slots=True)
class PromptSource:
    """Prompts that can be read, again and again, as batches of `amg.prompts.columns.SCHEMA`.

    `categories` are the numbers that its source gives to names of classes, where it does.
    """

    read: Callable[[], Iterator[pa.RecordBatch]]
    categories: Mapping[str, int] = field(default_factory=dict)


def is_file_of_prompts(location: str) -> bool:
    """Whether a location has the suffix of a file of prompts."""
    return location.lower().endswith((".json", *_LINES, *_TABLES))


def open_prompts(location: str) -> PromptSource:
    """The prompts of a file, or of a folder of YOLO labels.

    Files: COCO's JSON (annotations or results), JSON lines, Parquet, Arrow and CSV; docs/prompts.md
    names the columns. Raises ConfigError, now or when it is read, naming the file and the place in
    it; StorageError.
    """
    place = location if scheme_of(location) else absolute(local_path(location))
    with_place = _Naming(location)
    source = with_place.call(lambda: _open(place))
    return PromptSource(lambda: with_place.over(source.read), source.categories)


def _open(place: str) -> PromptSource:
    name = place.lower()
    if not scheme_of(place) and Path(place).is_dir():
        folder = Path(place)
        names = read_names(folder)
        return PromptSource(lambda: read_labels(folder, names), names)
    if name.endswith(".json"):
        if not is_object(place):
            return PromptSource(lambda: read_results(place))
        header = read_header(place)
        return PromptSource(lambda: read_annotations(place, header), header.numbers)
    if name.endswith(_LINES):
        return PromptSource(lambda: read_lines(place))
    if name.endswith(_TABLES):
        return PromptSource(lambda: read_table(place))
    known = ", ".join((".json", *_LINES, *_TABLES))
    raise ConfigError(f"expected a folder of YOLO labels, a run, or a file ({known})")


class _Naming:
    """Puts the location in front of what is wrong with it."""

    def __init__(self, location: str) -> None:
        self._shown = shown(location)

    def call(self, function: Callable[[], PromptSource]) -> PromptSource:
        try:
            return function()
        except (ConfigError, ImageError) as error:
            raise self._error(error) from error

    def over(self, read: Callable[[], Iterator[pa.RecordBatch]]) -> Iterator[pa.RecordBatch]:
        try:
            yield from read()
        except (ConfigError, ImageError) as error:
            raise self._error(error) from error

    def _error(self, error: AmgError) -> ConfigError:
        return ConfigError(f"prompts: {self._shown!r}: {error}")
