"""A storage whose passing failures are waited out: for who has nothing else to do meanwhile."""

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

from amg.storage.retry import with_backoff
from amg.storage.stores import Storage, open_storage


def open_patiently(url: str | os.PathLike[str]) -> "PatientStorage":
    """`open_storage`, with patience."""
    return PatientStorage(open_storage(url))


class PatientStorage:
    """A storage each of whose operations is tried again, see `with_backoff`; `once` is it without.

    A `create` whose answer was lost says False: the caller finds its own file there.
    """

    def __init__(self, storage: Storage) -> None:
        self.once = storage
        self.address = storage.address
        self.local_folder: Path | None = storage.local_folder

    def url(self, name: str = "") -> str:
        return self.once.url(name)

    def read(self, name: str) -> bytes | None:
        return with_backoff(lambda: self.once.read(name))

    def write(self, name: str, data: bytes) -> None:
        with_backoff(lambda: self.once.write(name, data))

    def create(self, name: str, data: bytes) -> bool:
        return with_backoff(lambda: self.once.create(name, data))

    def append(self, name: str, line: str) -> bool:
        return with_backoff(lambda: self.once.append(name, line))

    def list(self, folder: str) -> dict[str, int]:
        return with_backoff(lambda: self.once.list(folder))

    def delete(self, names: Iterable[str]) -> None:
        doomed = tuple(names)
        with_backoff(lambda: self.once.delete(doomed))

    def size(self, name: str) -> int | None:
        return with_backoff(lambda: self.once.size(name))

    def staged(self, name: str) -> AbstractContextManager[Path]:
        return self.once.staged(name)

    def publish(self, staged: Path, name: str) -> None:
        with_backoff(lambda: self.once.publish(staged, name))

    def open(self, name: str) -> BinaryIO:
        return with_backoff(lambda: self.once.open(name))

    def arrow(self) -> tuple[Any, str]:
        return self.once.arrow()
