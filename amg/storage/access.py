"""Files of this machine and of storages: how they are opened, and what their failures mean."""

import errno
import io
import os
import stat
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from amg.errors import ConfigError, ImageError, StorageError
from amg.storage.urls import is_web, scheme_of, shown

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

# What a local or mounted file system says when trying again may help.
# fmt: off
_PASSING_NAMES = (
    "EIO", "ESTALE", "EMFILE", "ENFILE", "ENOMEM", "EAGAIN", "EINTR", "EBUSY", "ETIMEDOUT",
    "ETIME", "ENOLCK", "ENOBUFS", "EDEADLK", "EREMOTEIO", "ENODEV", "ENOTCONN", "ECONNRESET",
    "ECONNREFUSED", "ECONNABORTED", "EPIPE", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN",
    "ENETUNREACH", "ENETRESET", "ENONET", "ESHUTDOWN",
)
# fmt: on
_PASSING = frozenset(getattr(errno, name) for name in _PASSING_NAMES if hasattr(errno, name))
_WEB_PASSING = frozenset((408, 425, 429))
_NO_ADDRESS = frozenset(("InvalidURL", "ParamValidationError", "InvalidUrlClientError"))
_REMOTE_BLOCK_BYTES = 8 * 2**20


@lru_cache(maxsize=64)
def missing_package(scheme: str) -> str | None:
    """What must be installed to read URLs of this scheme; None if nothing, or it is unknown."""
    import fsspec  # noqa: PLC0415 - slow, and local files need none of it

    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        return f"{scheme}:// needs a package that is not installed: {error}"
    except ValueError:
        return None
    return None


def connect(url: str, **options: Any) -> tuple["AbstractFileSystem", str]:
    """The file system of a URL, and the path in it.

    fsspec's own `url_to_fs` would take a "::" in a file's name for a chain of file systems.

    Raises ConfigError for an unknown scheme, or one whose package is not installed.
    """
    import fsspec  # noqa: PLC0415 - slow, and local files need none of it

    scheme = scheme_of(url)
    if problem := missing_package(scheme):
        raise ConfigError(problem)
    try:
        kind = fsspec.get_filesystem_class(scheme)
    except ValueError as error:
        raise ConfigError(f"{shown(url)!r}: unknown scheme {scheme!r}") from error
    url = scheme + url[len(scheme) :]
    return kind(**kind._get_kwargs_from_urls(url), **options), str(kind._strip_protocol(url))


def read_range(url: str, start: int, end: int) -> bytes:
    """The bytes of a remote file from `start` up to `end`, fewer if it is shorter.

    Raises ImageError or StorageError (see `remote_fault`).
    """
    try:
        if not _is_known(url):
            raise ImageError("missing", f"unknown scheme {scheme_of(url)!r}")
        files, path = connect(url)
        data: Any = files.cat_file(path, start=start, end=end)
    except Exception as error:  # every storage has its own: see remote_fault
        if start == 0 and _http_status(error) == 416:
            return b""  # an empty file has no range at all
        raise remote_fault(error, url) from None  # its text may quote the URL with its secrets
    return data if isinstance(data, bytes) else bytes(data)


def _is_known(url: str) -> bool:
    from fsspec.registry import known_implementations, registry  # noqa: PLC0415

    scheme = scheme_of(url)
    return scheme in known_implementations or scheme in registry


def open_file(location: str) -> "StorageFile":
    """Open a local or remote file for reading at any place.

    Raises ImageError or StorageError, now and when it is read; ConfigError as `connect`.
    """
    if not scheme_of(location):
        return _open_local(location)
    files, path = connect(location)
    try:
        # Readers of Parquet have buffers of their own; the others get one from `buffered`.
        file: Any = files.open(path, "rb", cache_type="none", block_size=_REMOTE_BLOCK_BYTES)
        size = getattr(file, "size", None)
    except Exception as error:  # every storage has its own: see remote_fault
        raise remote_fault(error, location) from None
    return StorageFile(file, location, size)


def _open_local(path: str) -> "StorageFile":
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would block for ever
            raise ImageError("decode_error", "not a regular file")
        file = Path(path).open("rb")  # noqa: SIM115 - the wrapper closes it
    except (OSError, ValueError) as error:
        raise local_fault(error, path) from error
    return StorageFile(file, path, os.fstat(file.fileno()).st_size)


class StorageFile(io.RawIOBase):
    """An open file whose failures are our errors, so that libraries above cannot blur them.

    `size_bytes` is None where the storage does not tell.
    """

    def __init__(self, file: IO[bytes], location: str, size_bytes: int | None) -> None:
        super().__init__()
        self._file = file
        self._location = location
        self.size_bytes = size_bytes

    @property
    def is_local(self) -> bool:
        """Whether the file is on this machine, and has a descriptor."""
        return not scheme_of(self._location)

    def readinto(self, buffer: Any, /) -> int:
        """Fill the buffer, less at the end of the file.

        Raises StorageError if the storage fails, or gives less than it has.
        """
        view = memoryview(buffer)
        try:
            at = self._file.tell()
            data = self._file.read(len(view))
        except Exception as error:  # every storage has its own: see remote_fault
            raise fault(error, self._location) from None
        if self.size_bytes is not None and len(data) < min(len(view), self.size_bytes - at):
            raise StorageError(f"{shown(self._location)}: {len(data)} bytes at {at}, cut short")
        view[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a place; io.UnsupportedOperation where a server sends from the start only."""
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError) as error:
            raise io.UnsupportedOperation("the server gives no ranges of this file") from error

    def tell(self) -> int:
        """The place in the file, in bytes."""
        return self._file.tell()

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always: a server without ranges is found out by `seek`."""
        return True

    def fileno(self) -> int:
        """The descriptor of a local file."""
        return self._file.fileno()

    def close(self) -> None:
        """Close the file below too."""
        if not self.closed:
            self._file.close()
        super().close()


def buffered(file: StorageFile, local_bytes: int = 2**16) -> io.BufferedReader:
    """For reading small pieces with few requests; `local_bytes` at once from this machine."""
    return io.BufferedReader(file, local_bytes if file.is_local else _REMOTE_BLOCK_BYTES)


def fault(error: Exception, location: str) -> ImageError | StorageError:
    """What a failure to read means: the image's own fault, or the storage's."""
    if isinstance(error, ImageError | StorageError):
        return error
    if scheme_of(location):
        return remote_fault(error, location)
    return local_fault(error, location)


def is_passing(error: Exception) -> bool:
    """Whether what this machine's file system says may be over when it is asked again."""
    return isinstance(error, OSError) and error.errno in _PASSING


def local_fault(error: Exception, path: str) -> ImageError | StorageError:
    """StorageError where trying again may help, ImageError for the rest."""
    if isinstance(error, ImageError | StorageError):
        return error
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return ImageError("missing", "no such file")
    reason = getattr(error, "strerror", None) or type(error).__name__
    if is_passing(error):
        return StorageError(f"{shown(path)}: {reason}")
    return ImageError("decode_error", f"cannot read the file: {reason}")


def remote_fault(error: Exception, url: str) -> ImageError | StorageError:
    """ImageError for what is not there; StorageError for all that may pass or be put right.

    Refusals (401, 403) of an object store concern the whole run: credentials that ran out, say.
    Those of a web server concern one address among many, as its other 3xx and 4xx do.
    """
    if isinstance(error, ImageError | StorageError):
        return error
    status = _http_status(error)
    if isinstance(error, FileNotFoundError | NotADirectoryError) or status in (404, 410):
        return ImageError("missing", "no such file")
    if isinstance(error, IsADirectoryError):
        return ImageError("decode_error", "not a regular file")
    if is_web(url) and status and 300 <= status < 500 and status not in _WEB_PASSING:
        return ImageError("missing", f"the server answers {status}")
    if isinstance(error, UnicodeError) or type(error).__name__ in _NO_ADDRESS:
        return ImageError("missing", "no address that this storage knows")
    reason = type(error).__name__ + (f" {status}" if status else "")
    # What web errors say quotes the address, with the signature in it.
    said = "" if is_web(url) else " ".join(str(error).split())[:200]
    return StorageError(f"{shown(url)}: {reason}" + (f": {said}" if said else ""))


def _http_status(error: BaseException | None) -> int | None:
    """The status code in an error of aiohttp, botocore, gcsfs or Azure, or in its cause."""
    for _ in range(5):  # causes of causes: far enough for all of them
        if error is None:
            return None
        for value in (*(getattr(error, name, None) for name in _STATUS_NAMES), _boto_status(error)):
            if isinstance(value, int | str) and str(value).isdecimal() and 100 <= int(value) < 600:
                return int(value)
        error = error.__cause__
    return None


_STATUS_NAMES = ("status", "status_code", "code")


def _boto_status(error: BaseException) -> object:
    response = getattr(error, "response", None)
    metadata = response.get("ResponseMetadata") if isinstance(response, dict) else None
    return metadata.get("HTTPStatusCode") if isinstance(metadata, dict) else None
