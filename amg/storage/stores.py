"""Where files are kept: a local folder or a prefix of an object store, with the same operations.

Everything is written whole or not at all. Local: a temporary sibling, fsync, rename, fsync of the
folder. Object stores: one upload, which such stores make visible only when it is complete.
"""

import io
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from pyarrow.fs import FSSpecHandler, LocalFileSystem, PyFileSystem

from amg.errors import StorageError
from amg.storage.access import connect, http_status, is_passing, is_refusal
from amg.storage.failpoints import reach
from amg.storage.opened import OpenFile
from amg.storage.staging import fill, link, move, staging
from amg.storage.urls import local_path, scheme_of, shown

_PRECONDITION_FAILED = 412
_AT_ONCE = 16  # requests under way where many small files are read or deleted


class Storage(Protocol):
    """A folder of files with names like `commits/00042.json`. All methods raise StorageError."""

    address: str
    """What `open_storage` takes, wherever it is called."""

    local_folder: Path | None
    """The folder itself where a file system of this machine has it, None on an object store."""

    def url(self, name: str = "") -> str:
        """Where a file is, for people."""
        ...

    def read(self, name: str) -> bytes | None:
        """The bytes of a file, None if there is no such file."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write a file, in place of one of this name."""
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Write a file unless there is one: False then.

        One of two who try at once is told so, where the storage knows how.
        """
        ...

    def append(self, name: str, line: str) -> bool:
        """Add a line to a file; False where the storage has no such operation."""
        ...

    def list(self, folder: str) -> dict[str, int]:
        """The files in a folder of this storage, by name within it, and their bytes."""
        ...

    def delete(self, names: Iterable[str]) -> None:
        """Delete files; those that are not there are deleted already."""
        ...

    def size(self, name: str) -> int | None:
        """The bytes of a file, None if there is no such file."""
        ...

    def staged(self, name: str) -> AbstractContextManager[Path]:
        """A local path to build a file at, that `publish` then makes `name`."""
        ...

    def publish(self, staged: Path, name: str) -> None:
        """Move a finished local file to its place."""
        ...

    def open(self, name: str) -> BinaryIO:
        """A file for reading, with seek."""
        ...

    def arrow(self) -> tuple[Any, str]:
        """A file system that pyarrow takes, and this folder's path in it."""
        ...


def open_storage(url: str | os.PathLike[str]) -> Storage:
    """The storage behind a folder's path or URL; nothing is created yet."""
    text = os.fspath(url)
    return ObjectStorage(text) if scheme_of(text) else LocalStorage(Path(local_path(text)))


def read_all(storage: Storage, names: Iterable[str]) -> Iterator[bytes | None]:
    """Read many small files, in order, several at once."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield from pool.map(storage.read, names)


class LocalStorage:
    """A folder of a local or mounted file system."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.address = str(self.root)
        self.local_folder: Path | None = self.root

    def url(self, name: str = "") -> str:
        return str(self.root / name)

    def read(self, name: str) -> bytes | None:
        with self._errors("read", name):
            try:
                return (self.root / name).read_bytes()
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        with self.staged(name) as staged:
            self._fill(staged, name, data)
            self.publish(staged, name)

    def create(self, name: str, data: bytes) -> bool:
        with self.staged(name) as staged, self._errors("create", name):
            self._fill(staged, name, data)
            return link(staged, self.root / name, partial(_reach, name))

    def append(self, name: str, line: str) -> bool:
        with self._errors("write", name), (self.root / name).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        return True

    def list(self, folder: str) -> dict[str, int]:
        with self._errors("list", folder):
            try:
                with os.scandir(self.root / folder) as entries:
                    sizes = {entry.name: _file_size(entry) for entry in entries}
            except FileNotFoundError:
                return {}
        return {name: size for name, size in sizes.items() if size is not None}

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            with self._errors("delete", name):
                (self.root / name).unlink(missing_ok=True)

    def size(self, name: str) -> int | None:
        with self._errors("read", name):
            try:
                return (self.root / name).stat().st_size
            except FileNotFoundError:
                return None

    @contextmanager
    def staged(self, name: str) -> Iterator[Path]:
        path = self.root / name
        staged = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
        with self._errors("create", name):
            path.parent.mkdir(parents=True, exist_ok=True)
        with staging(staged):
            yield staged

    def publish(self, staged: Path, name: str) -> None:
        with self._errors("write", name):
            move(staged, self.root / name, partial(_reach, name))

    def open(self, name: str) -> BinaryIO:
        with self._errors("read", name):
            return (self.root / name).open("rb")

    def arrow(self) -> tuple[Any, str]:
        return LocalFileSystem(), str(self.root)

    def _fill(self, staged: Path, name: str, data: bytes) -> None:
        with self._errors("write", name):
            fill(staged, data, partial(_reach, name))

    @contextmanager
    def _errors(self, verb: str, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            text = f"cannot {verb} {self.url(name)}: {error.strerror or error}"
            raise StorageError(text, passing=is_passing(error)) from error


class ObjectStorage:
    """A prefix of an object store that fsspec knows: s3://, gs://, abfs://, memory://."""

    def __init__(self, url: str) -> None:
        self.address = url
        self.local_folder: Path | None = None
        self._shown = shown(url).rstrip("/")
        # Listings must not be cached: other processes write here.
        self._fs, root = connect(url, use_listings_cache=False)
        self._root = root.rstrip("/")

    def url(self, name: str = "") -> str:
        return f"{self._shown}/{name}".rstrip("/")

    def read(self, name: str) -> bytes | None:
        return self._call("read", name, lambda: self._fs.cat_file(self._path(name)))

    def write(self, name: str, data: bytes) -> None:
        def write() -> None:
            _reach(name, "begun")
            self._fs.pipe_file(self._path(name), data)
            _reach(name, "renamed")

        self._call("write", name, write)

    def create(self, name: str, data: bytes) -> bool:
        def create() -> bool:
            try:
                _reach(name, "begun")
                self._fs.pipe_file(self._path(name), data, mode="create")
                _reach(name, "renamed")
            except FileExistsError:
                return False
            except OSError as error:  # some stores do not say which condition has failed
                if http_status(error) != _PRECONDITION_FAILED:
                    raise
                return False
            return True

        return self._call("create", name, create)

    def append(self, name: str, line: str) -> bool:
        return False

    def list(self, folder: str) -> dict[str, int]:
        path = self._path(folder).rstrip("/")
        entries: Any = self._call("list", folder, lambda: self._fs.ls(path, detail=True)) or []
        return {
            entry["name"].rpartition("/")[2]: entry["size"]
            for entry in entries
            if entry["type"] == "file" and entry["name"].rstrip("/") != path
        }

    def delete(self, names: Iterable[str]) -> None:
        def delete(name: str) -> None:
            self._call("delete", name, lambda: self._fs.rm_file(self._path(name)))

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(delete, names))

    def size(self, name: str) -> int | None:
        info = self._call("read", name, lambda: self._fs.info(self._path(name)))
        return None if info is None else info["size"]

    @contextmanager
    def staged(self, name: str) -> Iterator[Path]:
        try:
            folder = Path(tempfile.mkdtemp(prefix="amg-"))
        except OSError as error:
            place = f"{tempfile.gettempdir()} for {self.url(name)}"
            raise StorageError(f"cannot write {place}: {error.strerror}") from error
        try:
            yield folder / Path(name).name
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, staged: Path, name: str) -> None:
        def upload() -> None:
            _reach(name, "synced")
            self._fs.put_file(str(staged), self._path(name))
            _reach(name, "renamed")

        self._call("write", name, upload)
        found, expected = self.size(name), staged.stat().st_size
        if found != expected:
            raise StorageError(
                f"cannot write {self.url(name)}: {expected} bytes sent, {found} arrived"
            )

    def open(self, name: str) -> BinaryIO:
        file: Any = self._call("read", name, lambda: self._fs.open(self._path(name), "rb"))
        if file is None:
            raise StorageError(f"cannot read {self.url(name)}: no such file", passing=False)
        size, explain = getattr(file, "size", None), partial(self._fault, "read", name)
        raw = OpenFile(file, self.url(name), explain, size_bytes=size, is_local=False)
        return io.BufferedReader(raw, 1)  # the file below has a buffer of its own

    def arrow(self) -> tuple[Any, str]:
        return PyFileSystem(FSSpecHandler(self._fs)), self._root

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _call(self, verb: str, name: str, operation: Callable[[], Any]) -> Any:
        """The operation's result, None for a file that is not there."""
        try:
            return operation()
        except FileNotFoundError:
            if verb in ("write", "create"):  # no such bucket
                text = f"cannot {verb} {self.url(name)}: no such place"
                raise StorageError(text, passing=False) from None
            return None
        except Exception as error:  # each store's client raises what its authors chose
            raise self._fault(verb, name, error) from error

    def _fault(self, verb: str, name: str, error: Exception) -> StorageError:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        refused = isinstance(error, NotImplementedError) or is_refusal(error, http_status(error))
        return StorageError(f"cannot {verb} {self.url(name)}: {reason}", passing=not refused)


def _reach(name: str, step: str) -> None:
    kind = name.partition("/")[0].partition(".")[0]
    reach(f"{kind}.{step}")


def _file_size(entry: "os.DirEntry[str]") -> int | None:
    """The bytes of a file; None for what is no file, or has been deleted since."""
    try:
        return entry.stat().st_size if entry.is_file() else None
    except FileNotFoundError:
        return None
