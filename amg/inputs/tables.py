"""Tables that name images, or hold them: Parquet, and Arrow files and streams (Feather is one).

Planning reads ids and addresses, by batches, never the pictures; `cells.py` reads those.
"""

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from amg.errors import ConfigError, ImageError, StorageError
from amg.storage.opened import OpenFile

TABLE_SUFFIXES = (".parquet", ".arrow", ".feather")
URI_NAMES = ("uri", "url", "path", "file_name", "image_path")
IMAGE_NAMES = ("image", "bytes", "jpg", "png")

_BATCH_ROWS = 2**16
_BUFFER_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Columns of tables that are inputs; None: found by their usual names."""

    id_column: str | None = None
    uri_column: str | None = None
    image_column: str | None = None


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of one table: either `image` or `uri` is set."""

    image: str | None
    uri: str | None
    id: str | None


def choose_columns(schema: pa.Schema, options: SourceOptions) -> Columns:
    """Which columns hold what: those of the options, else pictures, else addresses.

    Raises ConfigError, with the columns there are, if there is none, or one of another type.
    """
    if options.image_column and options.uri_column:
        raise ConfigError("give an image column or a uri column, not both")
    image, uri = options.image_column, options.uri_column
    if not image and not uri:
        image = _first(schema, IMAGE_NAMES, _holds_images)
        uri = None if image else _first(schema, URI_NAMES, _is_text)
    if not image and not uri:
        raise ConfigError(
            f"no text column named {', '.join(URI_NAMES)} and no binary column named "
            f"{', '.join(IMAGE_NAMES)}; it has {_listed(schema)}: name one of them"
        )
    if image:
        _check(schema, image, "image", "binary", _holds_images)
    if uri:
        _check(schema, uri, "uri", "text", _is_text)
    if options.id_column:
        _check(schema, options.id_column, "id", "text or whole numbers", _is_id)
    return Columns(image, uri, options.id_column)


def open_table(file: OpenFile) -> "pq.ParquetFile | ArrowFile":
    """Open a table by its content.

    Raises pyarrow's errors if it is damaged; ConfigError for a Feather file of version 1.
    """
    start = file.read(8) or b""
    file.seek(0)
    if start.startswith(b"PAR1"):
        return pq.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    if start.startswith(b"FEA1"):
        raise ConfigError("Feather of version 1: write it as Parquet")
    return ArrowFile(file, is_stream=not start.startswith(b"ARROW1"))


class ArrowFile:
    """An Arrow file or stream; local ones are mapped, so that only what is asked for is read."""

    def __init__(self, file: OpenFile, is_stream: bool) -> None:
        self._file = file
        self._is_stream = is_stream
        self.schema_arrow: pa.Schema = self._reader([]).schema

    def check_images(self) -> None:
        """Raises ConfigError where pictures could be reached only by reading the whole file."""
        if not self._file.is_local:
            raise ConfigError("pictures in a remote Arrow file: copy it here, or write Parquet")

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All batches, of these columns."""
        reader = self._reader([self.schema_arrow.get_field_index(name) for name in columns])
        if isinstance(reader, pa.RecordBatchFileReader):
            yield from (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            yield from reader

    def _reader(self, fields: list[int]) -> Any:
        self._file.seek(0)
        source: Any = self._file
        if self._file.is_local:  # a map of our own: pyarrow's takes UTF-8 names only
            mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
            source = pa.BufferReader(pa.py_buffer(mapped))
        options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
        reader = pa.ipc.open_stream if self._is_stream else pa.ipc.open_file
        return reader(source, options=options)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table: its number, its id if there is an id column, its uri if it names one."""

    number: int
    image_id: str | None
    uri: str | None


def list_rows(file: OpenFile, options: SourceOptions) -> tuple[Columns, Iterator[Row]]:
    """The columns of a table, and its rows in order, by batches.

    Raises ConfigError, now or later, for a damaged table, for missing columns, and for rows
    without an id or a uri, which it names.
    """
    try:
        table = open_table(file)
        columns = choose_columns(table.schema_arrow, options)
        if columns.image and isinstance(table, ArrowFile):
            table.check_images()
    except (ConfigError, ImageError, StorageError):
        raise
    except Exception as error:  # pyarrow says ValueError, OSError, KeyError, ... of damaged files
        raise ConfigError(f"damaged table, or none: {_reason(error)}") from error
    return columns, _rows(table, columns)


def _rows(table: "pq.ParquetFile | ArrowFile", columns: Columns) -> Iterator[Row]:
    start = 0
    try:
        for count, ids, uris in _batches(table, columns):
            numbers = range(start, start + count)
            id_texts = _texts(ids, columns.id, start) if ids is not None else [None] * count
            uri_texts = _texts(uris, columns.uri, start) if uris is not None else [None] * count
            yield from map(Row, numbers, id_texts, uri_texts)
            start += count
    except (ConfigError, ImageError, StorageError):
        raise
    except Exception as error:  # see list_rows
        raise ConfigError(f"damaged table after row {start}: {_reason(error)}") from error


def _batches(
    table: "pq.ParquetFile | ArrowFile", columns: Columns
) -> Iterator[tuple[int, pa.Array | None, pa.Array | None]]:
    """(rows, ids, uris) of each batch, without a column that is not needed."""
    names = list(dict.fromkeys(name for name in (columns.id, columns.uri) if name))
    if isinstance(table, pq.ParquetFile):
        if not names:  # nothing but the number of rows is asked for, and the footer has it
            yield table.metadata.num_rows, None, None
            return
        batches = table.iter_batches(_BATCH_ROWS, columns=names, use_threads=False)
    else:
        batches = table.batches(names or [str(columns.image)])
    for batch in batches:
        if names and isinstance(table, ArrowFile):
            batch.validate(full=True)  # an Arrow file's bytes become arrays unchecked
        ids = batch.column(columns.id) if columns.id else None
        uris = batch.column(columns.uri) if columns.uri else None
        yield batch.num_rows, ids, uris


def _texts(array: pa.Array, name: str | None, start: int) -> list[str]:
    """Values as text. Raises ConfigError naming the first row, from 0, that has none."""
    if isinstance(array, pa.DictionaryArray):
        array = array.dictionary_decode()  # a null may hide in the dictionary
    if array.null_count:
        row = start + pc.index(array.is_null(), True).as_py()
        raise ConfigError(f"row {row}: column {name!r} is null")
    values = array.to_pylist()
    if pa.types.is_integer(array.type):
        return [str(value) for value in values]
    if "" in values:
        raise ConfigError(f"row {start + values.index('')}: column {name!r} is empty")
    return values


def _first(schema: pa.Schema, names: Sequence[str], fits: Any) -> str | None:
    found = (name for name in names if schema.get_field_index(name) >= 0)
    return next((name for name in found if fits(schema.field(name).type)), None)


def _check(schema: pa.Schema, name: str, role: str, wanted: str, fits: Any) -> None:
    if schema.get_field_index(name) < 0:  # also if there are two of that name
        raise ConfigError(f"no one {role} column {name!r}; it has {_listed(schema)}")
    if not fits(schema.field(name).type):
        raise ConfigError(f"{role} column {name!r} is {schema.field(name).type}, not {wanted}")


def _listed(schema: pa.Schema) -> str:
    shown = [f"{field.name!r} ({field.type})" for field in list(schema)[:20]]
    return ", ".join(shown)[:1000] or "no columns"


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_view = kind == pa.string_view()
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or is_view


def _is_id(kind: pa.DataType) -> bool:
    return _is_text(kind) or pa.types.is_integer(kind)


def _is_binary(kind: pa.DataType) -> bool:
    is_view = kind == pa.binary_view()
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or is_view


def _holds_images(kind: pa.DataType) -> bool:
    """Binary, or what Hugging Face datasets write: a struct of `bytes` and `path`."""
    if not pa.types.is_struct(kind):
        return _is_binary(kind)
    fields = {field.name: field.type for field in kind}
    return "bytes" in fields and _is_binary(fields["bytes"])


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
