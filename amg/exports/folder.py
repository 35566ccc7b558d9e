"""The folder of an export: its files appear whole, and what is done is written down.

DEST/.amg-export/export.json     which export this is: no other is mixed with it
                 00042.json      part 42 is done: what was there to export, and its counts
                 00042.NAME      its records of one list, until documents are made of them
                 finished.json   all is done: of what, and the counts; only this stays
"""

import json
import os
import shutil
import uuid
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from amg.errors import OutputError, StorageError
from amg.exports.rendering import Document, Records
from amg.storage.access import is_passing
from amg.storage.failpoints import reach
from amg.storage.locks import LockTakenError, take_lock
from amg.storage.staging import fill, move, staging

_STATE = ".amg-export"
_IDENTITY = "export.json"
_FINISHED = "finished.json"


class Folder:
    """A local folder with one export, or the beginning of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._state = root / _STATE

    @contextmanager
    def claimed(self, identity: Mapping[str, Any]) -> Iterator[None]:
        """Keep the folder for this export while it is written.

        Raises OutputError if it holds something else, or another process writes to it.
        """
        with _errors(self.root):
            found = _read(self._state / _IDENTITY)
            if found is None and self._has_others():
                raise OutputError(f"{self.root}: not empty, and not the beginning of an export")
            if found is not None and found != identity:
                other = ", ".join(_differences(found, dict(identity)))
                raise OutputError(f"{self.root}: holds another export ({other})")
            self._state.mkdir(parents=True, exist_ok=True)
            try:
                lock = take_lock(self._state / "lock")
            except LockTakenError:
                raise OutputError(f"{self.root}: another process exports to it") from None
        with lock:
            for left in self._state.glob("*.partial"):
                left.unlink()
            if found is None:
                self._write(self._state / _IDENTITY, _to_json(identity))
            yield

    def write(self, name: str, data: bytes) -> None:
        """Write one of many files: whole or not at all; on the disk once its part is done."""
        self._write(self.root / name, data)

    def done(
        self, part: int, state: Sequence[str], documents: Iterable[str]
    ) -> dict[str, Any] | None:
        """The counts of a part that was exported from the same state, None if it was not.

        Its documents must still be there: they can be deleted or left out of a copy.
        """
        return self._counts(self._marker(part), state, documents)

    @contextmanager
    def records(self, part: int, names: Sequence[str]) -> Iterator[Mapping[str, BinaryIO]]:
        """Files for a part's records, written anew: they count when the part is done."""
        with _errors(self._state):
            files = {name: self._records(part, name).open("wb") for name in names}
        try:
            with _errors(self._state):
                yield files
        finally:
            for file in files.values():
                file.close()

    def finish_part(self, part: int, state: Sequence[str], counts: Mapping[str, Any]) -> None:
        """Note that a part is done, when all of it is on the disk."""
        os.sync()  # one for all of the part's files
        reach("export.synced")
        self._write(self._marker(part), _to_json({"state": state, "counts": counts}))
        reach("export.part_done")

    def compose(self, document: Document, parts: Sequence[int], name: str) -> None:
        """Make a document of the records of some parts."""
        path = self.root / name
        with _errors(path), self._staging() as staged:
            with staged.open("wb") as file:
                if document.member is None:
                    self._join(file, document.pieces, parts)
                else:
                    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                        # Without the time of day, so that equal exports have equal bytes.
                        info = zipfile.ZipInfo(document.member)
                        info.compress_type = zipfile.ZIP_DEFLATED
                        with archive.open(info, "w", force_zip64=True) as member:
                            self._join(member, document.pieces, parts)
            move(staged, path)

    def forget(self, part: int, names: Sequence[str]) -> None:
        """Delete a part's records, when no document needs them any more."""
        with _errors(self._state):
            for name in names:
                self._records(part, name).unlink(missing_ok=True)

    def finished(self, state: Sequence[str], documents: Iterable[str]) -> dict[str, Any] | None:
        """The counts of the export, None if it is not finished or was of another state.

        As for a part, its documents must still be there.
        """
        return self._counts(self._state / _FINISHED, state, documents)

    def finish(self, state: Sequence[str], counts: Mapping[str, Any]) -> None:
        """Note that all is done, and delete what only going on needs."""
        self._write(self._state / _FINISHED, _to_json({"state": state, "counts": counts}))
        with _errors(self._state):
            # A part's marker before its records: where it is, they are believed to be there.
            for pattern in ("[0-9]*.json", "[0-9]*.*"):
                for path in self._state.glob(pattern):
                    path.unlink(missing_ok=True)

    def _counts(
        self, note: Path, state: Sequence[str], documents: Iterable[str]
    ) -> dict[str, Any] | None:
        with _errors(self._state):
            found = _read(note)
            if found is None or found["state"] != list(state):
                return None
            return found["counts"] if all((self.root / n).is_file() for n in documents) else None

    def _join(self, file: Any, pieces: Sequence[bytes | Records], parts: Sequence[int]) -> None:
        for piece in pieces:
            if isinstance(piece, bytes):
                file.write(piece)
                continue
            sources = (self._records(part, piece.name) for part in parts)
            _join([path for path in sources if path.stat().st_size], piece.separator, file)

    def _write(self, path: Path, data: bytes) -> None:
        with _errors(path), self._staging() as staged:
            fill(staged, data, lambda step: reach(f"export.{step}"))
            move(staged, path, durable=False)

    def _staging(self) -> AbstractContextManager[Path]:
        """A place among our notes to build a file at."""
        return staging(self._state / f"{uuid.uuid4().hex}.partial")

    def _has_others(self) -> bool:
        return self.root.exists() and any(path.name != _STATE for path in self.root.iterdir())

    def _marker(self, part: int) -> Path:
        return self._state / f"{part:05d}.json"

    def _records(self, part: int, name: str) -> Path:
        return self._state / f"{part:05d}.{name}"


def _join(sources: Sequence[Path], separator: bytes, target: BinaryIO) -> None:
    for i, path in enumerate(sources):
        if i:
            target.write(separator)
        with path.open("rb") as source:
            shutil.copyfileobj(source, target, 2**20)


def _read(path: Path) -> dict[str, Any] | None:
    """A JSON file of ours, None if there is none."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise OutputError(f"{path}: damaged: {error}; delete the folder and export anew") from error


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    keys = sorted({*found, *wanted})
    return [f"{k}: {found.get(k)!r}" for k in keys if found.get(k) != wanted.get(k)]


def _to_json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename or path
        text = f"cannot write {where}: {error.strerror or error}"
        raise StorageError(text, passing=is_passing(error)) from error
