"""The planned images of a run: its inputs.parquet, read a range at a time."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from amg.errors import RunError, StorageError
from amg.io.run_folder import INPUTS
from amg.io.sources import ImageSource
from amg.io.storage import Storage

INPUTS_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.large_string(), nullable=False),
        pa.field("uri", pa.large_string(), nullable=False),
        pa.field("path", pa.large_binary(), nullable=False),
        pa.field("offset", pa.int64()),
        pa.field("size", pa.int64()),
        pa.field("column", pa.dictionary(pa.int32(), pa.string())),
        pa.field("row", pa.int64()),
    ]
)
"""A row of inputs.parquet is an `ImageSource`."""


class PlannedInputs:
    """Reads the sources of shards from inputs.parquet, keeping the last part that was read."""

    def __init__(self, storage: Storage) -> None:
        """Open the planned inputs. Raises StorageError, RunError for what is no such file."""
        self._where = storage.url(INPUTS)
        self._file: Any = storage.open(INPUTS)  # pyarrow takes any object with read and seek
        try:
            self._parquet = pq.ParquetFile(self._file)
        except (OSError, pa.ArrowException) as error:
            raise RunError(f"{self._where}: cannot be read: {error}") from error
        metadata = self._parquet.metadata
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self._starts = np.cumsum([0, *sizes])
        self._group, self._table = -1, INPUTS_SCHEMA.empty_table()

    def read(self, rows: range) -> list[ImageSource]:
        """The sources of a range of planned rows."""
        sources: list[ImageSource] = []
        at = rows.start
        while at < rows.stop:
            group = int(np.searchsorted(self._starts, at, side="right")) - 1
            if group != self._group:
                self._group, self._table = group, self._read_group(group)
            offset = at - int(self._starts[group])
            part = self._table.slice(offset, rows.stop - at)
            sources += [ImageSource(**values) for values in part.to_pylist()]
            at += len(part)
        return sources

    def _read_group(self, group: int) -> pa.Table:
        try:
            return self._parquet.read_row_group(group, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise StorageError(f"{self._where}: cannot be read: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._parquet.close()
        self._file.close()
