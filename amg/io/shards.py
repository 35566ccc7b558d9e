"""A shard: rows in one Parquet file that appears whole or not at all."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from amg.errors import ShardError
from amg.io.schema import SCHEMA, SCHEMA_VERSION, ImageRow, from_table, to_table

# Row groups stay far under 100 MB, so that readers can take them one at a time.
_ROW_GROUP_BYTES = 32 * 1024 * 1024


class ShardWriter:
    """Writes rows to `path` through a temporary sibling; a context manager.

    Leaving the block normally publishes the file, after it was closed, reopened and its rows
    counted; leaving it with an error removes what was written. `metadata` goes into the file.

    Raises ShardError where the file cannot be written or does not hold what it should.
    """

    def __init__(self, path: Path, metadata: Mapping[str, str]) -> None:
        self.path = path
        self.n_rows = 0
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        self._pending: list[ImageRow] = []
        self._pending_bytes = 0
        schema = SCHEMA.with_metadata({**(SCHEMA.metadata or {}), **metadata})
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(
                self._partial, schema, compression="zstd", write_page_index=True
            )
        except OSError as error:
            raise ShardError(f"{path}: cannot be created: {error}") from error

    def __enter__(self) -> "ShardWriter":
        return self

    def write(self, row: ImageRow) -> None:
        """Add a row."""
        self._pending.append(row)
        self._pending_bytes += 200 + sum(len(mask.rle.counts) + 80 for mask in row.masks)
        self.n_rows += 1
        if self._pending_bytes >= _ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        try:
            self._writer.write_table(to_table(self._pending))
        except (OSError, pa.ArrowException) as error:
            raise ShardError(f"{self.path}: cannot be written: {error}") from error
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
                self._publish()
        except (OSError, pa.ArrowException) as failure:
            raise ShardError(f"{self.path}: cannot be written: {failure}") from failure
        finally:
            self._writer.close()
            self._partial.unlink(missing_ok=True)

    def _publish(self) -> None:
        self._writer.close()
        found = pq.read_metadata(self._partial).num_rows
        if found != self.n_rows:
            raise ShardError(f"{self.path}: wrote {self.n_rows} rows, found {found}")
        with self._partial.open("rb") as file:
            os.fsync(file.fileno())
        self._partial.replace(self.path)
        _sync_folder(self.path.parent)


def read_shard(path: Path) -> Iterator[ImageRow]:
    """Read a shard's rows, one row group at a time. Raises ShardError for what is no shard."""
    try:
        with pq.ParquetFile(path) as file:
            if not file.schema_arrow.equals(SCHEMA):
                raise ShardError(f"{path}: its columns are not those of schema {SCHEMA_VERSION}")
            for group in range(file.num_row_groups):
                yield from from_table(file.read_row_group(group))
    except (OSError, pa.ArrowException) as error:
        raise ShardError(f"{path}: cannot be read: {error}") from error


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
