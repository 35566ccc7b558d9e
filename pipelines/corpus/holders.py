"""Who is at work on a run's folder, by its leases: they are looked at, and not taken."""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from amg.errors import StorageError
from amg.storage.locks import holder_of
from amg.storage.stores import Storage

_SLICES = "-of-"


@dataclass(frozen=True, slots=True)
class Holder:
    """A process at work on a folder since a time, on all of it or on the slice "I/N".

    host, pid and since are None where it has not signed, or nobody can read it.
    """

    slice: str | None
    host: str | None = None
    pid: int | None = None
    since: float | None = None


def find_holders(storage: Storage) -> list[Holder]:
    """Who holds a folder, or slices of it, now. Raises StorageError."""
    folder = storage.local_folder
    signed = _renewed(storage) if folder is None else _locked(folder / ".leases")
    return [_holder(name, text) for name, text in signed if _SLICES in name]


def _locked(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.glob("*.lock")):
        try:
            text = holder_of(path)
        except OSError as error:
            raise StorageError(f"cannot look at {path}: {error.strerror}") from error
        if text is not None:
            yield path.stem, text


def _renewed(storage: Storage) -> Iterator[tuple[str, bytes]]:
    for file in sorted(storage.list("leases")):
        text = storage.read(f"leases/{file}")
        if text is not None and not _has_run_out(text):
            yield file.removesuffix(".json"), text


def _has_run_out(text: bytes) -> bool:
    with suppress(ValueError, KeyError, TypeError):
        return time.time() >= float(json.loads(text)["until"])
    return False


def _holder(name: str, text: bytes) -> Holder:
    index, _, count = name.partition(_SLICES)
    slice_ = f"{int(index) + 1}/{count}" if index.isdigit() and count != "1" else None
    with suppress(ValueError, KeyError, TypeError):
        values = json.loads(text)
        return Holder(slice_, str(values["host"]), int(values["pid"]), float(values["since"]))
    return Holder(slice_)
