"""Sources that are kept for one call alone: what a run's folder must not hold, or not yet."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from amg.errors import StorageError
from amg.inputs.sources import ImageSource
from amg.runs.planned import INPUTS_SCHEMA, PlannedInputs, SourceTable, to_table
from amg.storage.access import is_passing


class SourceSpool:
    """A list of sources on the disk for temporary files, where it has no name.

    Nobody else can read it, and it goes with the process, whatever ends that.
    """

    def __init__(self) -> None:
        self._file: Any = None
        self._writer: pq.ParquetWriter | None = None
        self._table: SourceTable | None = None

    def __enter__(self) -> "SourceSpool":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            with suppress(OSError, pa.ArrowException):  # nobody wants it any more
                self._writer.close()
        if self._file is not None:
            self._file.close()

    def write(self, sources: Sequence[ImageSource]) -> None:
        """Add sources, before any are read. Raises StorageError."""
        try:
            if self._writer is None:
                self._file = tempfile.TemporaryFile(prefix="amg-")  # noqa: SIM115 - see __exit__
                self._writer = pq.ParquetWriter(self._file, INPUTS_SCHEMA, compression="zstd")
            self._writer.write_table(to_table(sources))
        except (OSError, pa.ArrowException) as error:
            raise _cannot_write(error) from error

    def batches(self) -> Iterator[list[ImageSource]]:
        """All that was written, in parts. Raises StorageError."""
        return self._finished().batches() if self._file is not None else iter(())

    def ids(self) -> Iterator[list[str]]:
        """All ids, in parts. Raises StorageError."""
        return self._finished().ids() if self._file is not None else iter(())

    def read(self, rows: range) -> list[ImageSource]:
        """The sources at these places. Raises StorageError."""
        return self._finished().read(rows)

    def _finished(self) -> SourceTable:
        if self._table is None:
            assert self._writer is not None, "nothing was written"
            try:
                self._writer.close()
                self._file.flush()
            except (OSError, pa.ArrowException) as error:
                raise _cannot_write(error) from error
            self._table = SourceTable(self._file, f"a file in {tempfile.gettempdir()}")
        return self._table


class CompleteInputs:
    """The sources of a plan as this call reads them, where its folder has less or another place.

    That is so for URLs with user, password or query, and for what has moved. Only sources from the
    first such one on are kept here: those before are in the folder as they are.
    """

    def __init__(self) -> None:
        self._spool = SourceSpool()
        self._start: int | None = None

    def __enter__(self) -> "CompleteInputs":
        return self

    def __exit__(self, *_: object) -> None:
        self._spool.__exit__()

    def add(self, start: int, planned: Sequence[ImageSource], present: list[ImageSource]) -> None:
        """Take note of the sources from the plan's row `start` on. Raises StorageError."""
        if self._start is None and all(p is q for p, q in zip(planned, present, strict=True)):
            return
        self._start = start if self._start is None else self._start
        self._spool.write(present)

    def read(self, inputs: PlannedInputs, rows: range) -> list[ImageSource]:
        """The sources of a range of planned rows. Raises StorageError."""
        if self._start is None or rows.stop <= self._start:
            return inputs.read(rows)
        at = max(rows.start, self._start)
        before = inputs.read(range(rows.start, at))
        return before + self._spool.read(range(at - self._start, rows.stop - self._start))


def _cannot_write(error: Exception) -> StorageError:
    reason = getattr(error, "strerror", None) or error
    text = f"cannot write to {tempfile.gettempdir()} (TMPDIR): {reason}"
    return StorageError(text, passing=isinstance(error, OSError) and is_passing(error))
