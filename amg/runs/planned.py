"""The planned images of a run: where the bytes of each are, for workers and for looking back."""

import hashlib
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from amg.errors import ImageError, RunError, StorageError
from amg.inputs.images import MAX_PIXELS, decode_image
from amg.inputs.reading import read_source
from amg.inputs.sources import ImageSource
from amg.runs.folder import INPUTS
from amg.storage.stores import Storage

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

    def find(self, image_ids: Collection[str]) -> dict[str, tuple[int, ImageSource]]:
        """The planned row and the source of each of these ids that was planned: one pass."""
        wanted = set(image_ids)
        found: dict[str, tuple[int, ImageSource]] = {}
        for group, start in enumerate(self._starts[:-1].tolist()):
            if len(found) == len(wanted):
                break
            ids = self._read_group(group, ["image_id"]).column("image_id").to_pylist()
            for row in (start + i for i, image_id in enumerate(ids) if image_id in wanted):
                (source,) = self.read(range(row, row + 1))
                found[source.image_id] = row, source
        return found

    def ids(self) -> Iterator[str]:
        """The ids of all planned images, in order."""
        for group in range(len(self._starts) - 1):
            yield from self._read_group(group, ["image_id"]).column("image_id").to_pylist()

    def _read_group(self, group: int, columns: list[str] | None = None) -> pa.Table:
        try:
            return self._parquet.read_row_group(group, columns=columns, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise StorageError(f"{self._where}: cannot be read: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._parquet.close()
        self._file.close()


def read_planned_image(
    source: ImageSource, sha256: str | None, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Read an image of a run again, (H, W, 3) uint8 RGB, upright.

    sha256: what the row says of the file's bytes. Raises ImageError if the file is missing, cannot
    be decoded, or is another one now; StorageError for what may pass.
    """
    data = read_source(source)
    if sha256 not in (None, hashlib.sha256(data).hexdigest()):
        raise ImageError("decode_error", "the file has changed since the run")
    return decode_image(data, max_pixels=max_pixels).rgb
