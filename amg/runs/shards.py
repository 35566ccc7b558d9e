"""A shard: rows in one Parquet file, written, checked and read."""

import hashlib
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate, chain
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from amg.errors import ShardError, StorageError
from amg.runs.schema import READABLE, SCHEMA, SCHEMA_VERSION, ImageRow, from_table, to_table
from amg.storage.access import is_passing
from amg.storage.failpoints import reach

# Row groups stay far under 100 MB, so that readers can take them one at a time.
_ROW_GROUP_BYTES = 32 * 1024 * 1024
_GROUPS_KEPT = 2


class ShardWriter:
    """Writes rows to the local file `path`, for a caller that publishes it; a context manager.

    `metadata` goes into the file. Raises StorageError where it cannot be written.
    """

    def __init__(self, path: Path, metadata: Mapping[str, str]) -> None:
        self.path = path
        self.n_rows = 0
        self._pending: list[ImageRow] = []
        self._pending_bytes = 0
        self._schema = SCHEMA.with_metadata({**(SCHEMA.metadata or {}), **metadata})
        try:
            self._file = path.open("wb")
            self._writer = pq.ParquetWriter(
                self._file, self._schema, compression="zstd", write_page_index=True
            )
        except OSError as error:
            raise _unwritable(path, error) from error

    def __enter__(self) -> "ShardWriter":
        return self

    def write(self, row: ImageRow) -> None:
        """Add a row."""
        self._pending.append(row)
        masks = chain(row.masks, row.candidates or ())
        self._pending_bytes += 200 + sum(len(mask.rle.counts) + 80 for mask in masks)
        self._pending_bytes += 0 if row.embedding is None else row.embedding.nbytes
        self.n_rows += 1
        if self._pending_bytes >= _ROW_GROUP_BYTES:
            self._flush()
        reach("shard.row_written")

    def _flush(self) -> None:
        if not self._pending:
            return
        try:
            self._writer.write_table(to_table(self._pending))
        except (OSError, pa.ArrowException) as error:
            raise _unwritable(self.path, error) from error
        self._pending, self._pending_bytes = [], 0

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            try:
                self._writer.close()
                self._file.close()
                reach("shard.closed")
            except (OSError, pa.ArrowException) as failure:
                if kind is None:  # else the first error is the one to know of
                    raise _unwritable(self.path, failure) from failure


def _unwritable(path: Path, error: Exception) -> StorageError:
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    return StorageError(f"cannot write {path}: {reason}", passing=is_passing(error))


def check_shard(path: Path, image_ids: Sequence[str]) -> str:
    """Open a finished file again and compare its rows' ids; give the sha256 of its bytes.

    Raises ShardError for a file that does not hold what it should, StorageError if it cannot be
    read.
    """
    try:
        with path.open("rb") as file:
            found = list(read_ids(file, str(path)))
            if found != list(image_ids):
                raise ShardError(f"{path}: {len(image_ids)} rows were to be written, found others")
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        text = f"cannot read {path}: {error.strerror or error}"
        raise StorageError(text, passing=is_passing(error)) from error
    reach("shard.verified")
    return digest


def read_metadata(file: BinaryIO | Path, name: str) -> dict[str, str]:
    """What is written into a shard of how it was made. Raises ShardError for what is no shard."""
    source: Any = file
    try:
        metadata = pq.read_schema(source).metadata or {}
        return {key.decode(): value.decode() for key, value in metadata.items()}
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise _unreadable(name, error) from error


def read_ids(file: BinaryIO, name: str) -> Iterator[str]:
    """The image ids of a shard's rows. Raises ShardError for what is no shard."""
    for table in _read_groups(file, name, ["image_id"]):
        yield from table.column("image_id").to_pylist()


def read_statuses(file: BinaryIO, name: str) -> list[str]:
    """The statuses of a shard's rows. Raises ShardError for what is no shard."""
    groups = _read_groups(file, name, ["status"])
    return [status for table in groups for status in table.column("status").to_pylist()]


def read_shard(
    file: BinaryIO | Path,
    name: str | None = None,
    *,
    candidates: bool = False,
    embedding: bool = False,
) -> Iterator[ImageRow]:
    """Read a shard's rows, one row group at a time. Raises ShardError for what is no shard.

    name: what to call the file in errors. candidates, embedding: read those too, where they were
    kept; they are many times all else.
    """
    columns = _columns(candidates=candidates, embedding=embedding)
    for table in _read_groups(file, name or str(file), columns):
        yield from from_table(table)


def read_columns(file: BinaryIO | Path, name: str, columns: list[str]) -> Iterator[pa.Table]:
    """Some columns of a shard, one row group at a time; of structs, `masks.list.element.area`.

    Raises ShardError for what is no shard.
    """
    return _read_groups(file, name, columns)


def read_rows(
    file: BinaryIO | Path, name: str, places: Sequence[int], *, embedding: bool = False
) -> Iterator[ImageRow]:
    """The rows at these places of a shard, which rise; row groups without any are not read.

    embedding: read that too. Raises ShardError for what is no shard.
    """
    for table in _read_groups(file, name, _columns(embedding=embedding), places):
        yield from from_table(table)


def _columns(*, candidates: bool = False, embedding: bool = False) -> list[str]:
    left_out = {"candidates": not candidates, "embedding": not embedding}
    return [name for name in SCHEMA.names if not left_out.get(name)]


def _read_groups(
    source: BinaryIO | Path,
    name: str,
    columns: list[str],
    places: Sequence[int] | None = None,
) -> Iterator[pa.Table]:
    """The row groups, of which `places` leaves only some rows."""
    file: Any = source  # pyarrow takes any object with read and seek
    try:
        with pq.ParquetFile(file) as parquet:
            _check_columns(parquet, name)
            first = 0
            for group in range(parquet.num_row_groups):
                n_rows = parquet.metadata.row_group(group).num_rows
                wanted = None
                if places is not None:
                    wanted = [place - first for place in places if first <= place < first + n_rows]
                first += n_rows
                if wanted == []:
                    continue
                table = _read_group(parquet, group, columns)
                yield table if wanted is None else table.take(wanted)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise _unreadable(name, error) from error


def _check_columns(parquet: pq.ParquetFile, name: str) -> None:
    if not any(map(parquet.schema_arrow.equals, READABLE)):
        raise ShardError(f"{name}: its columns are not those of schema {SCHEMA_VERSION}")


def _read_group(parquet: pq.ParquetFile, group: int, columns: list[str]) -> pa.Table:
    # Arrow's threads would hold Python's file, and abort if Python ends meanwhile.
    table = parquet.read_row_group(group, columns=columns, use_threads=False)
    table.validate(full=True)  # else damaged text is found by whoever decodes it
    return table


class RowReader:
    """Rows of one shard by their place, with embeddings, for threads that each want the next.

    Keeps the row groups that were read last: the slowest of the threads is one behind, at most.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        """Take an open file. Raises ShardError for what is no shard, StorageError."""
        self.name = name
        self._lock = threading.Lock()
        self._tables: OrderedDict[int, pa.Table] = OrderedDict()
        source: Any = file
        with self._errors():
            self._parquet = pq.ParquetFile(source)
            _check_columns(self._parquet, name)
        metadata = self._parquet.metadata
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self._ends = list(accumulate(sizes))

    def row(self, place: int) -> ImageRow:
        """The row at a place. Raises ShardError, StorageError."""
        group = bisect_right(self._ends, place)
        first = self._ends[group - 1] if group else 0
        with self._lock, self._errors():
            if group not in self._tables:
                columns = _columns(embedding=True)
                self._tables[group] = _read_group(self._parquet, group, columns)
                if len(self._tables) > _GROUPS_KEPT:
                    self._tables.popitem(last=False)
            table = self._tables[group]
        (row,) = from_table(table.slice(place - first, 1))
        return row

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise _unreadable(self.name, error) from error
        except OSError as error:
            text = f"{self.name}: cannot be read: {error}"
            raise StorageError(text, passing=is_passing(error)) from error

    def close(self) -> None:
        """Forget the file, which whoever opened it closes."""
        self._parquet.close()


def _unreadable(name: str, error: Exception) -> ShardError:
    reason = str(error).partition("\n")[0]
    return ShardError(f"{name}: cannot be read: {reason}")
