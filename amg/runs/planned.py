"""The planned images of a run: where the bytes of each are, for workers and for looking back."""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from amg.errors import ImageError, RunError, StorageError
from amg.inputs.allowed import ANYWHERE
from amg.inputs.images import MAX_PIXELS, decode_image
from amg.inputs.reading import read_source
from amg.inputs.sources import ImageSource
from amg.runs.folder import INPUTS
from amg.storage.stores import Storage

_WITHHELD = (
    "its address has a user, password or query, such as a signature, and needs it: "
    "a run does not keep them"
)

INPUTS_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.large_string(), nullable=False),
        pa.field("uri", pa.large_string(), nullable=False),
        pa.field("path", pa.large_binary(), nullable=False),
        pa.field("offset", pa.int64()),
        pa.field("size", pa.int64()),
        pa.field("column", pa.dictionary(pa.int32(), pa.string())),
        pa.field("row", pa.int64()),
        pa.field("withheld", pa.bool_()),
    ]
)
"""A row of inputs.parquet is an `ImageSource`. Files of older versions have no `withheld`."""


def to_table(sources: Sequence[ImageSource]) -> pa.Table:
    """Sources as a table of INPUTS_SCHEMA."""
    arrays = [
        pa.array([getattr(source, field.name) for source in sources], type=field.type)
        for field in INPUTS_SCHEMA
    ]
    return pa.Table.from_arrays(arrays, schema=INPUTS_SCHEMA)


def to_sources(table: pa.Table) -> list[ImageSource]:
    """Undo `to_table`."""
    return [ImageSource(**values) for values in table.to_pylist()]


class SourceTable:
    """Reads sources from a Parquet file, keeping the last part that was read."""

    def __init__(self, file: Any, where: str) -> None:
        """Open a file with read and seek. Raises RunError for what holds no sources."""
        self._where = where
        try:
            self._parquet = pq.ParquetFile(file)
        except (OSError, pa.ArrowException) as error:
            raise RunError(f"{where}: cannot be read: {error}") from error
        metadata = self._parquet.metadata
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self._starts = np.cumsum([0, *sizes])
        self._group, self._table = -1, INPUTS_SCHEMA.empty_table()

    def read(self, rows: range) -> list[ImageSource]:
        """The sources of a range of rows. Raises StorageError."""
        sources: list[ImageSource] = []
        at = rows.start
        while at < rows.stop:
            group = int(np.searchsorted(self._starts, at, side="right")) - 1
            if group != self._group:
                self._group, self._table = group, self._read_group(group)
            offset = at - int(self._starts[group])
            part = self._table.slice(offset, rows.stop - at)
            sources += to_sources(part)
            at += len(part)
        return sources

    def batches(self) -> Iterator[list[ImageSource]]:
        """All sources, a row group at a time. Raises StorageError, RunError for a damaged one."""
        return (to_sources(self._read_group(group)) for group in range(len(self._starts) - 1))

    def ids(self) -> Iterator[list[str]]:
        """All ids, a row group at a time. Raises StorageError."""
        groups = range(len(self._starts) - 1)
        tables = (self._read_group(group, ["image_id"]) for group in groups)
        return (table.column("image_id").to_pylist() for table in tables)

    def _read_group(self, group: int, columns: list[str] | None = None) -> pa.Table:
        try:
            return self._parquet.read_row_group(group, columns=columns, use_threads=False)
        except pa.ArrowException as error:
            raise RunError(f"{self._where}: damaged: {error}") from error
        except Exception as error:  # each store's client raises what its authors chose
            raise StorageError(f"{self._where}: cannot be read: {error}") from error

    def close(self) -> None:
        """Forget the file, which whoever opened it closes."""
        self._parquet.close()


class PlannedInputs:
    """The sources of shards, from inputs.parquet."""

    def __init__(self, storage: Storage) -> None:
        """Open the planned inputs. Raises StorageError, RunError for what is no such file."""
        self._file: Any = storage.open(INPUTS)  # pyarrow takes any object with read and seek
        self._table = SourceTable(self._file, storage.url(INPUTS))

    def read(self, rows: range) -> list[ImageSource]:
        """The sources of a range of planned rows."""
        return self._table.read(rows)

    def find(self, image_ids: Collection[str]) -> dict[str, tuple[int, ImageSource]]:
        """The planned row and the source of each of these ids that was planned: one pass."""
        wanted = set(image_ids)
        found: dict[str, tuple[int, ImageSource]] = {}
        if wanted:
            for row, image_id in enumerate(self.ids()):
                if image_id in wanted:
                    (source,) = self.read(range(row, row + 1))
                    found[image_id] = row, source
                    if len(found) == len(wanted):
                        break
        return found

    def ids(self) -> Iterator[str]:
        """The ids of all planned images, in order."""
        return chain.from_iterable(self._table.ids())

    def batches(self) -> Iterator[list[ImageSource]]:
        """All planned sources, in order and in parts."""
        return self._table.batches()

    def close(self) -> None:
        """Close the file."""
        self._table.close()
        self._file.close()


def read_planned_image(
    source: ImageSource, sha256: str | None, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Read an image of a run again, (H, W, 3) uint8 RGB, upright.

    sha256: what the row says of the file's bytes. Raises ImageError if the file is missing, cannot
    be decoded, or is another one now, and for one whose address had what a run does not keep;
    StorageError for what may pass.
    """
    if source.withheld:
        raise ImageError("unreachable", _WITHHELD)
    # What the run has read, a cell may name: else the sum would be another.
    data = read_source(source, allow=ANYWHERE if sha256 is not None else None)
    if sha256 not in (None, hashlib.sha256(data).hexdigest()):
        raise ImageError("decode_error", "the file has changed since the run")
    return decode_image(data, max_pixels=max_pixels).rgb
