"""Prompts from COCO's JSON, as annotations or results, and from JSON lines.

Formats: https://cocodataset.org/#format-data and https://cocodataset.org/#format-results. A file of
annotations is read twice, since what its numbers mean may stand at its end; never as a whole.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute

from amg.errors import ConfigError
from amg.inputs.files import buffered, open_file
from amg.prompts.columns import BATCH, PromptColumns, box_of, numbers, points_of
from amg.prompts.json_items import JsonItems
from amg.storage.urls import name_of

pc: Any = pyarrow.compute  # its functions are made when it is imported

_MOST_LINE_BYTES = 2**26


@dataclass(slots=True)
class Header:
    """What a file says of its images and categories; None where it has no such list."""

    image_ids: pa.Array | None = None
    image_names: pa.Array | None = None
    categories: dict[str, str] = field(default_factory=dict)

    @property
    def numbers(self) -> dict[str, int]:
        """The numbers of categories by name, where they are whole."""
        whole = {name: n for n, name in self.categories.items() if n.isascii() and n.isdecimal()}
        return {name: int(n) for name, n in whole.items()}


def is_object(location: str) -> bool:
    """Whether a JSON file holds an object, as files of annotations do, or a list."""
    with closing(open_file(location)) as raw:
        return JsonItems(buffered(raw)).peek() == "{"


def read_header(location: str) -> Header:
    """The images and categories of a file of annotations, none of which is kept."""
    header = Header()
    with closing(open_file(location)) as raw:
        file = JsonItems(buffered(raw))
        for name in file.members():
            if name == "images":
                header.image_ids, header.image_names = _read_images(file)
            elif name == "categories":
                pairs = _texts(file, name, lambda item: (_text(item["id"]), _text(item["name"])))
                header.categories = dict(pairs)
            elif name == "annotations" and header.image_ids is not None and header.categories:
                return header  # all is known
            else:
                file.skip()
    return header


def _read_images(file: JsonItems) -> tuple[pa.Array, pa.Array]:
    parts: list[tuple[pa.Array, pa.Array]] = []
    pairs = _texts(file, "images", lambda item: (_text(item["id"]), _image_name(item)))
    while some := list(islice(pairs, BATCH)):
        ids, names = zip(*some, strict=True)
        parts.append((pa.array(ids, pa.large_string()), pa.array(names, pa.large_string())))
    none = pa.array([], pa.large_string())
    ids, names = zip((none, none), *parts, strict=True)
    return pa.concat_arrays(ids), pa.concat_arrays(names)


def _image_name(item: Mapping[str, Any]) -> str:
    """What a file calls an image; "" where it has only a number."""
    if item.get("file_name"):
        return _text(item["file_name"])
    return name_of(_text(item.get("coco_url") or ""))  # LVIS has addresses in place of names


def _texts(
    file: JsonItems, what: str, texts_of: Callable[[Mapping[str, Any]], tuple[str, str]]
) -> Iterator[tuple[str, str]]:
    """Two texts of each object of a list."""
    for number, item in enumerate(file.items()):
        try:
            yield texts_of(item)
        except (ConfigError, KeyError, TypeError, AttributeError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else error
            raise ConfigError(f"{what}[{number}]: {reason}") from error


def read_annotations(location: str, header: Header) -> Iterator[pa.RecordBatch]:
    """The annotations of a file as prompts."""
    with closing(open_file(location)) as raw:
        file = JsonItems(buffered(raw))
        for name in file.members():
            if name != "annotations":
                file.skip()
                continue
            items = ((f"annotations[{i}]", item) for i, item in enumerate(file.items()))
            for batch in read_entries(items, header.categories):
                yield _with_names(batch, header)
            return  # a second list of that name is nobody's


def read_results(location: str) -> Iterator[pa.RecordBatch]:
    """The entries of a list as prompts."""
    with closing(open_file(location)) as raw:
        items = JsonItems(buffered(raw)).items()
        yield from read_entries((f"[{i}]", item) for i, item in enumerate(items))


def read_lines(location: str) -> Iterator[pa.RecordBatch]:
    """The lines of a file, an object each, as prompts."""
    with closing(open_file(location)) as raw:
        yield from read_entries(_parsed_lines(buffered(raw)))


def _parsed_lines(file: Any) -> Iterator[tuple[str, Any]]:
    number = 0
    while line := file.readline(_MOST_LINE_BYTES):
        number += 1
        if not line.strip():
            continue
        try:
            yield f"line {number}", json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"line {number}: damaged JSON: {error}") from error


def read_entries(
    entries: Iterable[tuple[str, Any]], categories: Mapping[str, str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Objects, each with its place in the file, as prompts.

    categories: names by id, for entries that have `category_id` alone. Raises ConfigError that
    names the place of an entry that is no prompt.
    """
    columns = PromptColumns()
    for number, (where, entry) in enumerate(entries):
        try:
            _add(columns, entry, str(number), categories or {})
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
        if len(columns) == BATCH:
            yield columns.take()
    if len(columns):
        yield columns.take()


def _add(columns: PromptColumns, entry: Any, number: str, categories: Mapping[str, str]) -> None:
    if not isinstance(entry, dict):
        raise ConfigError("no object")
    image = entry.get("image_id", entry.get("file_name"))
    if image is None:
        raise ConfigError("neither image_id nor file_name")
    own_id = entry.get("prompt_id", entry.get("id"))
    score = entry.get("score")
    columns.add(
        _text(image),
        number if own_id is None else _text(own_id),
        box_of(entry),
        points_of(entry),
        _category(entry, categories),
        None if score is None else numbers([score], 1, "score")[0],
    )


def _category(entry: Mapping[str, Any], categories: Mapping[str, str]) -> str | None:
    named = entry.get("category", entry.get("category_name"))
    if named is not None:
        return _text(named)
    number = entry.get("category_id")
    return None if number is None else categories.get(_text(number), _text(number))


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ConfigError(f"expected text or a whole number, got {str(value)[:60]}")
    return str(value)


def _with_names(batch: pa.RecordBatch, header: Header) -> pa.RecordBatch:
    """The prompts with the file names of their images, where the file has them.

    What names no image of the file is about none: its number must not be taken for another's.
    """
    if header.image_ids is None or header.image_names is None:
        return batch
    keys = batch.column("image")
    places = pc.index_in(keys, value_set=header.image_ids)
    names = header.image_names.take(places)
    named = pc.if_else(pc.equal(names, ""), keys, names)
    label, space = (pa.scalar(text, keys.type) for text in ("image_id", " "))
    named = pc.coalesce(named, pc.binary_join_element_wise(label, keys, space))
    return batch.set_column(0, batch.schema.field("image"), named)
