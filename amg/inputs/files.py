"""Files of this machine and of storages, opened for reading; their failures are our errors."""

import io
import os
import stat
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from amg.errors import ImageError
from amg.inputs.faults import fault, local_fault, remote_fault
from amg.storage.access import connect, http_status, is_known
from amg.storage.opened import OpenFile
from amg.storage.urls import is_web, scheme_of, shown

_REMOTE_BLOCK_BYTES = 8 * 2**20
_WEB_CHUNK_BYTES = 2**18


def read_range(url: str, start: int, end: int) -> bytes:
    """The bytes of a remote file from `start` up to `end`, fewer if it is shorter.

    Raises ImageError or StorageError (see `remote_fault`).
    """
    try:
        if not is_known(url):
            raise ImageError("missing", f"unknown scheme {scheme_of(url)!r}")
        files, path = connect(url)
        if is_web(url):
            data: Any = _fetch(files, path, start, end)
        else:
            data = files.cat_file(path, start=start, end=end)
    except Exception as error:  # every storage has its own: see remote_fault
        if start == 0 and http_status(error) == 416:
            return b""  # an empty file has no range at all
        raise remote_fault(error, url) from None  # its text may quote the URL with its secrets
    return data if isinstance(data, bytes) else bytes(data)


def _fetch(files: Any, url: str, start: int, end: int) -> bytes:
    """As the `cat_file` of fsspec's web, but no more than was asked for: a server may never end."""
    from fsspec.asyn import sync  # noqa: PLC0415 - slow, and local files need none of it

    data: Any = sync(files.loop, _read_web, files, url, start, end)
    return data


async def _read_web(files: Any, url: str, start: int, end: int) -> bytes:
    session = await files.set_session()
    headers = {"Range": f"bytes={start}-{end - 1}"}
    async with session.get(files.encode_url(url), headers=headers) as response:
        response.raise_for_status()
        if start and response.status != HTTPStatus.PARTIAL_CONTENT:
            raise ImageError("decode_error", "the server gives no ranges of a file")
        data = bytearray()
        async for chunk in response.content.iter_chunked(_WEB_CHUNK_BYTES):
            data += chunk
            if len(data) > end - start:
                break
    del data[end - start + 1 :]
    return bytes(data)


def open_file(location: str) -> OpenFile:
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
    explain = partial(fault, location=location)
    return OpenFile(file, shown(location), explain, size_bytes=size, is_local=False)


def _open_local(path: str) -> OpenFile:
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would block for ever
            raise ImageError("decode_error", "not a regular file")
        file = Path(path).open("rb")  # noqa: SIM115 - the wrapper closes it
    except (OSError, ValueError) as error:
        raise local_fault(error, path) from error
    size, explain = os.fstat(file.fileno()).st_size, partial(fault, location=path)
    return OpenFile(file, shown(path), explain, size_bytes=size, is_local=True)


def buffered(file: OpenFile, local_bytes: int = 2**16) -> io.BufferedReader:
    """For reading small pieces with few requests; `local_bytes` at once from this machine."""
    return io.BufferedReader(file, local_bytes if file.is_local else _REMOTE_BLOCK_BYTES)
