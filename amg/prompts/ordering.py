"""Prompts in the order of the planned images, sorted on disk: what is in memory is bounded."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from amg.errors import StorageError
from amg.storage.access import is_passing

_BUFFER_BYTES = 2**26
_CHUNK = 2**14


class PromptOrder:
    """Takes prompts with their planned rows, and gives them by row, as they came within one.

    What does not fit a buffer waits in files, each in order, which are mapped to be merged.
    """

    def __init__(self, n_images: int) -> None:
        self._counts = np.zeros(n_images, np.int64)
        self._waiting: list[pa.Table] = []
        self._n_bytes = 0
        self._folder = tempfile.TemporaryDirectory(prefix="amg-prompts-")
        self._sorted: list[pa.Table] = []
        self._maps: list[pa.MemoryMappedFile] = []

    def __enter__(self) -> "PromptOrder":
        return self

    def __exit__(self, *_: object) -> None:
        self._sorted = []
        for mapped in self._maps:
            mapped.close()
        self._folder.cleanup()

    @property
    def n_images_with_prompts(self) -> int:
        """How many planned images have one at least."""
        return int(np.count_nonzero(self._counts))

    def add(self, batch: pa.RecordBatch, rows: np.ndarray) -> None:
        """Add prompts and the planned row of each. Raises StorageError."""
        self._counts += np.bincount(rows, minlength=len(self._counts))
        table = pa.Table.from_batches([batch]).add_column(0, "row", pa.array(rows, pa.int64()))
        self._waiting.append(table)
        self._n_bytes += table.nbytes
        if self._n_bytes >= _BUFFER_BYTES:
            self._spill()

    def chunks(self) -> Iterator[pa.Table]:
        """All prompts by row, some at a time, those of an image together.

        Raises StorageError.
        """
        if self._waiting:
            self._sorted.append(self._take_sorted())
        columns = [table.column("row").to_numpy() for table in self._sorted]
        for first, end in self._spans():
            parts = []
            for table, rows in zip(self._sorted, columns, strict=True):
                low, high = np.searchsorted(rows, (first, end))
                parts.append(table.slice(low, high - low))
            joined = pa.concat_tables(parts)
            yield joined.take(np.argsort(joined.column("row").to_numpy(), kind="stable"))

    def _spans(self) -> Iterator[tuple[int, int]]:
        """Ranges of rows with about as many prompts each."""
        ends = np.cumsum(self._counts)
        first, n_before = 0, 0
        while n_before < (ends[-1] if len(ends) else 0):
            end = max(first + 1, int(np.searchsorted(ends, n_before + _CHUNK, "right")))
            if ends[end - 1] > n_before:
                yield first, end
            first, n_before = end, int(ends[end - 1])

    def _take_sorted(self) -> pa.Table:
        table = pa.concat_tables(self._waiting)
        self._waiting, self._n_bytes = [], 0
        order = np.argsort(table.column("row").to_numpy(), kind="stable")
        return table.take(order).combine_chunks()

    def _spill(self) -> None:
        table = self._take_sorted()
        path = Path(self._folder.name) / f"{len(self._maps)}.arrow"
        try:
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
            mapped = pa.memory_map(str(path))
            self._maps.append(mapped)
            self._sorted.append(pa.ipc.open_file(mapped).read_all())
        except (OSError, pa.ArrowException) as error:
            text = f"cannot write to {self._folder.name} (TMPDIR): {error}"
            passing = isinstance(error, OSError) and is_passing(error)
            raise StorageError(text, passing=passing) from error
