"""The bytes of one planned image, wherever they are."""

import stat
from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path

from amg.errors import ImageError, StorageError
from amg.inputs.allowed import refusal
from amg.inputs.cells import read_cell
from amg.inputs.faults import local_fault
from amg.inputs.files import read_range
from amg.inputs.sources import ImageSource
from amg.storage.urls import folder_of, from_bytes, is_web, join, scheme_of, shown

MAX_BYTES = 2**32
"""Of a file: twice what `images.MAX_PIXELS` need as uncompressed 16-bit RGBA."""
MAX_WEB_BYTES = 2**28
"""Of what a web server sends, which may never end, to each of some threads."""


def read_source(
    source: ImageSource, max_bytes: int = MAX_BYTES, *, allow: Sequence[str] | None = None
) -> bytes:
    """Read a file, a tar's member or a table's cell. Safe in threads.

    allow: which files a cell may name, see `amg.inputs.allowed.refusal`.

    Raises ImageError for what is the image's own fault: "missing", "too_large" above `max_bytes`,
    or "decode_error" for what is no regular file or is damaged. Raises StorageError for what may
    pass, such as time-outs, refusals of an object store, or a member that is cut short.
    """
    location = from_bytes(source.path)
    if source.column is not None:
        assert source.row is not None, "a table's cell has a column and a row"
        return _read_cell(location, source.column, source.row, max_bytes, allow)
    if source.offset is not None:
        assert source.size is not None, "a tar's member has an offset and a size"
        return _read_member(location, source.offset, source.size, max_bytes)
    if scheme_of(location):
        _check_size(source.size, max_bytes)
    return _read_file(location, max_bytes)


def read_location(location: str | PathLike[str], *, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a file of this machine or behind a URL.

    Raises as `read_source` does.
    """
    return _read_file(fspath(location), max_bytes)


def read_bytes(path: str | Path, *, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file of this machine.

    Raises ImageError: "missing" if there is none, "too_large" above `max_bytes`, "decode_error"
    for what is no regular file (a pipe would block for ever) or cannot be read; StorageError for
    what may pass, such as an I/O error or too many open files.
    """
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("decode_error", "not a regular file")
        _check_size(status.st_size, max_bytes)
        return Path(path).read_bytes()
    except ImageError:  # a ValueError itself
        raise
    except (OSError, ValueError, MemoryError) as error:  # ValueError: a null byte in the path
        raise local_fault(error, str(path)) from error


def _read_file(location: str, max_bytes: int) -> bytes:
    if not scheme_of(location):
        return read_bytes(location, max_bytes=max_bytes)
    if is_web(location):
        max_bytes = min(max_bytes, MAX_WEB_BYTES)
    data = read_range(location, 0, max_bytes + 1)  # its size would be one more request
    _check_size(len(data), max_bytes, "more than " if len(data) == max_bytes + 1 else "")
    return data


def _read_member(location: str, offset: int, size: int, max_bytes: int) -> bytes:
    _check_size(size, max_bytes)
    if not size:
        return b""
    if scheme_of(location):
        data = read_range(location, offset, offset + size)
    else:
        data = _read_local_range(location, offset, size)
    if len(data) > size:
        raise ImageError("decode_error", "the server gives no ranges of a file")
    if len(data) < size:
        message = f"{shown(location)}: {len(data)} of {size} bytes at {offset}"
        raise StorageError(message)
    return data


def _read_local_range(path: str, offset: int, size: int) -> bytes:
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise ImageError("decode_error", "not a regular file")
        with Path(path).open("rb") as file:
            file.seek(offset)
            return file.read(size)
    except ImageError:  # a ValueError itself
        raise
    except (OSError, ValueError, MemoryError) as error:
        raise local_fault(error, path) from error


def _read_cell(
    location: str, column: str, row: int, max_bytes: int, allow: Sequence[str] | None
) -> bytes:
    """A cell's bytes, or those of the file it names, relative to the table's folder."""
    cell = read_cell(location, column, row, max_bytes)
    if cell.data is not None:
        return cell.data
    root = folder_of(location)
    place = join(root, str(cell.path))
    if problem := refusal(place, allow, root):
        raise ImageError("missing", f"the table names a file that it may not: {problem}")
    return _read_file(place, max_bytes)


def _check_size(size: int | None, max_bytes: int, more: str = "") -> None:
    if size is not None and size > max_bytes:
        size -= bool(more)
        raise ImageError("too_large", f"file of {more}{size} bytes, the limit is {max_bytes}")
