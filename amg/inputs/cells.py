"""Pictures in the cells of a table, read one by one and in order, in bounded memory."""

import os
import threading
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from amg.errors import ConfigError, ImageError, StorageError
from amg.inputs.files import open_file
from amg.inputs.tables import ArrowFile, open_table
from amg.storage.urls import scheme_of

_CHUNK_BYTES = 64 * 2**20
_CHUNKS_KEPT = 3
_TABLES_OPEN = 2
_MAX_CHUNK_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Cell:
    """A picture's bytes, or where they are: one of both is set, the path as the table has it."""

    data: bytes | None
    path: str | None


def read_cell(location: str, column: str, row: int, max_bytes: int) -> Cell:
    """The cell of a table at a path or URL. Safe in threads; neighbouring rows come cheap.

    Raises ImageError: "missing" for a cell that is null or a row that is not there, "too_large",
    "decode_error" for a damaged table; StorageError if the storage fails.
    """
    key = (location, column, os.getpid(), *_version(location))
    table = _open_tables.get(key)
    try:
        value = table.value(row)
    except (ImageError, StorageError):
        _open_tables.drop(key)
        raise
    except Exception as error:  # pyarrow says ValueError, OSError, KeyError, ... of damaged files
        _open_tables.drop(key)
        raise ImageError("decode_error", f"damaged table: {type(error).__name__}") from error
    return _cell(value, max_bytes)


def _version(location: str) -> tuple[int, ...]:
    """What changes when a local file is written anew: an open one would give the old rows."""
    if scheme_of(location):
        return ()
    try:
        status = Path(location).stat()
    except (OSError, ValueError):
        return ()  # opening it says what is wrong
    return status.st_ino, status.st_mtime_ns, status.st_size


def _cell(value: Any, max_bytes: int) -> Cell:
    """A scalar, binary or a struct of `bytes` and `path`, to what it holds."""
    if value is None:
        raise ImageError("missing", "the table has no such row")
    if not value.is_valid:
        raise ImageError("missing", "the cell is null")
    path = None
    if isinstance(value, pa.StructScalar):
        names = {field.name for field in value.type}
        path = value["path"].as_py() if "path" in names else None
        value = value["bytes"]
    if value.is_valid:
        buffer = value.as_buffer()
        if buffer.size > max_bytes:
            message = f"cell of {buffer.size} bytes, the limit is {max_bytes}"
            raise ImageError("too_large", message)
        return Cell(buffer.to_pybytes(), None)
    if not isinstance(path, str) or not path:
        raise ImageError("missing", "the cell has neither bytes nor a path")
    return Cell(None, path)


class _Column:
    """One column of an open table, read on from where the last cell was.

    A few chunks of about 64 MB are kept, so that threads whose rows are neighbours share them,
    and a row group of any size fits.
    """

    def __init__(self, location: str, column: str) -> None:
        self._name = column
        self._lock = threading.Lock()
        self._table = open_table(open_file(location))
        if self._table.schema_arrow.get_field_index(column) < 0:
            raise ImageError("decode_error", f"the table has no column {column!r:.80}")
        self._starts = [0]
        if isinstance(self._table, pq.ParquetFile):
            metadata = self._table.metadata
            sizes = (metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
            self._starts = list(accumulate(sizes, initial=0))
        self._kept: deque[tuple[int, pa.Array]] = deque(maxlen=_CHUNKS_KEPT)
        self._chunks: Iterator[pa.Array] = iter(())
        self._next = -1  # the row that the next chunk begins with; -1: none is under way

    def value(self, row: int) -> Any:
        """The scalar of a row, None if the table ends before it."""
        with self._lock:
            while (found := self._among_kept(row)) is None:
                if not self._next <= row or self._is_far(row):
                    self._seek(row)
                chunk = next(self._chunks, None)
                if chunk is None:
                    self._next = -1
                    return None
                self._kept.append((self._next, chunk))
                self._next += len(chunk)
            return found

    def _among_kept(self, row: int) -> Any:
        for start, chunk in self._kept:
            if start <= row < start + len(chunk):
                return chunk[row - start]
        return None

    def _is_far(self, row: int) -> bool:
        """Whether to jump rather than to read on: to another row group than the next chunk's."""
        return self._next < 0 or bisect_right(self._starts, row) > bisect_right(
            self._starts, self._next
        )

    def _seek(self, row: int) -> None:
        if not isinstance(self._table, pq.ParquetFile):
            self._next = 0
            self._chunks = self._arrow_chunks(self._table)
            return
        count = self._table.metadata.num_row_groups
        group = min(bisect_right(self._starts, row) - 1, count)
        self._next = self._starts[group]
        self._chunks = self._parquet_chunks(self._table, range(group, count))

    def _parquet_chunks(self, table: pq.ParquetFile, groups: range) -> Iterator[pa.Array]:
        if not groups:
            return
        rows = max(1, min(_MAX_CHUNK_ROWS, _CHUNK_BYTES // self._row_bytes(table, groups[0])))
        for batch in table.iter_batches(
            rows, row_groups=list(groups), columns=[self._name], use_threads=False
        ):
            yield batch.column(0)

    def _row_bytes(self, table: pq.ParquetFile, group: int) -> int:
        """Mean uncompressed bytes of a row in this column, at least 1."""
        metadata = table.metadata.row_group(group)
        chunks = (metadata.column(i) for i in range(metadata.num_columns))
        ours = (c for c in chunks if c.path_in_schema.split(".")[0] == self._name)
        return 1 + sum(c.total_uncompressed_size for c in ours) // max(1, metadata.num_rows)

    def _arrow_chunks(self, table: ArrowFile) -> Iterator[pa.Array]:
        for batch in table.batches([self._name]):
            batch.validate(full=True)  # an Arrow file's bytes become arrays unchecked
            yield batch.column(0)


class _OpenTables:
    """The tables used last; an opened one is shared by all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._columns: OrderedDict[tuple[Any, ...], _Column] = OrderedDict()

    def get(self, key: tuple[Any, ...]) -> _Column:
        with self._lock:
            column = self._columns.get(key)
            if column is None:
                column = self._columns[key] = _open_column(key[0], key[1])
                if len(self._columns) > _TABLES_OPEN:
                    self._columns.popitem(last=False)  # closed when no thread has it any more
            self._columns.move_to_end(key)
            return column

    def drop(self, key: tuple[Any, ...]) -> None:
        """Forget a table that failed, so that the next try opens it again."""
        with self._lock:
            self._columns.pop(key, None)


def _open_column(location: str, column: str) -> _Column:
    try:
        return _Column(location, column)
    except ConfigError as error:  # a package that this machine lacks
        raise StorageError(str(error)) from error
    except (ImageError, StorageError):
        raise
    except Exception as error:  # see read_cell
        raise ImageError("decode_error", f"damaged table: {type(error).__name__}") from error


_open_tables = _OpenTables()
