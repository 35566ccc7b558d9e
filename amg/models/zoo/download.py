"""Fetch a published file: resumed where it was cut, and verified before it gets its name.

What has arrived lies in `<file>.part` beside the target and is continued by the next call, of this
process or another. Callers that may run at once hold `exclusive` around it.
"""

import hashlib
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from amg.errors import CheckpointError

logger = logging.getLogger(__name__)

_TIMEOUT_S = 20.0  # to connect, and between two pieces of the body
_ATTEMPTS = 3  # in a row that bring the file no further
_RETRY_WAIT_S = 1.0  # doubled with each of them
_PROGRESS_EVERY_S = 5.0
_CHUNK_BYTES = 2**18
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A checkpoint as its authors publish it.

    `hub_repo`: a Hugging Face repository with the same weights, as `model.safetensors` under the
    key names of `transformers`.
    """

    file_name: str
    url: str
    sha256: str
    hub_repo: str | None = None


class UnreachableError(CheckpointError):
    """A file's source does not answer, or does not have it: another source may."""


class _CutError(Exception):
    """A transfer failed in a way that trying again may mend."""


def download(published: PublishedFile, target: Path) -> None:
    """Bring a published file to `target`, whole and verified, or not at all.

    Raises UnreachableError where the source is the trouble, CheckpointError for a wrong sum (what
    has arrived is deleted), OSError where the disk is (what has arrived stays, to be continued).
    """
    partial = target.with_name(target.name + ".part")
    logger.info("downloading %s to %s", published.file_name, target.parent)
    _fetch(published.url, partial)
    actual = sha256_of(partial)
    if actual != published.sha256:
        partial.unlink()
        raise CheckpointError(
            f"{published.url}: what was downloaded has sha256 {actual}, but should have "
            f"{published.sha256}; it was deleted"
        )
    _sync(partial)
    partial.replace(target)


def answers(url: str) -> bool:
    """Whether anything answers at a URL, be it with an error; asked once."""
    try:
        request = Request(url, method="HEAD")  # noqa: S310 - a fixed one, or the user's mirror
        build_opener().open(request, timeout=_TIMEOUT_S).close()
    except HTTPError as error:
        error.close()
    except (OSError, HTTPException):
        return False
    return True


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path`: one process or thread of this machine at a time, others wait.

    The system lets go of the lock of a process that dies.
    """
    # Windows has no such locks: there, only this is missing.
    from amg.storage.locks import LockTakenError, take_lock  # noqa: PLC0415

    try:
        lock = take_lock(path)
    except LockTakenError:
        logger.info("waiting for another process that holds %s", path)
        lock = take_lock(path, wait=True)
    with lock:
        yield


def _fetch(url: str, partial: Path) -> None:
    """Complete `partial`, over as many requests as it takes while they bring it further."""
    furthest, failures = _size_bytes(partial), 0
    while True:
        try:
            return _fetch_rest(url, partial)
        except _CutError as error:
            size = _size_bytes(partial)
            failures = 0 if size > furthest else failures + 1
            furthest = max(furthest, size)
            if failures >= _ATTEMPTS:
                raise UnreachableError(f"{url}: {error}") from error
            logger.info("%s: %s; trying again", partial.stem, error)
            time.sleep(_RETRY_WAIT_S * 2**failures)


def _fetch_rest(url: str, partial: Path) -> None:
    """Ask once for what `partial` lacks, and append it."""
    start = _size_bytes(partial)
    try:
        response = _open(url, start)
    except HTTPError as error:
        error.close()
        if error.code != 416:
            raise _refusal(url, error) from error
        # Nothing lies after `start`: the file is complete, or not this one.
        if error.headers.get("Content-Range") == f"bytes */{start}":
            return
        partial.unlink()
        raise _CutError("the partial file does not fit the server's") from error
    with response:
        if response.status != 206:
            start = 0  # the server knows no ranges, and sends all of it
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            partial.unlink()
            raise _CutError("the server sent another range than was asked for")
        _append(response, partial, start)


def _append(response: HTTPResponse, partial: Path, start: int) -> None:
    """Write a response's body into `partial` from byte `start` on, where it ends."""
    total = None if response.length is None else start + response.length
    progress = _Progress(partial.stem, start, total)
    written = start
    with partial.open("ab" if start else "wb") as file:
        for chunk in _chunks(response):
            file.write(chunk)
            written += len(chunk)
            progress.report(written)
    if total is not None and written < total:
        raise _CutError(f"the connection was cut after {written} of {total} bytes")


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    """The body, piece by piece; only errors of the network become _CutError."""
    while True:
        try:
            chunk = response.read(_CHUNK_BYTES)
        except (OSError, HTTPException) as error:
            raise _CutError(f"the connection was cut ({error})") from error
        if not chunk:
            return
        yield chunk


def _open(url: str, start: int) -> HTTPResponse:
    """Request a URL from byte `start` on. Raises HTTPError for any status but success."""
    _require_https(url)
    request = Request(url, headers={"User-Agent": "amg"})  # noqa: S310 - the scheme is checked
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        return build_opener(_HttpsRedirects).open(request, timeout=_TIMEOUT_S)
    except HTTPError:
        raise
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise _CutError(f"no answer ({reason})") from error


def _refusal(url: str, error: HTTPError) -> Exception:
    """What a status that is no success means: passing (too busy, broken), or final."""
    message = f"the server answered {error.code} {error.reason}"
    if error.code in (408, 429) or error.code >= 500:
        return _CutError(message)
    return UnreachableError(f"{url}: {message}")


def _require_https(url: str) -> None:
    parts = urlsplit(url)
    loopback = parts.scheme == "http" and parts.hostname in _LOOPBACK
    if parts.scheme != "https" and not loopback:
        raise UnreachableError(f"{url}: only https is downloaded from")


class _HttpsRedirects(HTTPRedirectHandler):
    """Follow redirects to https only."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        _require_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Progress:
    """Logs how far a long download is, every few seconds."""

    def __init__(self, name: str, start: int, total: int | None) -> None:
        self._name, self._start = name, start
        self._total = "?" if total is None else f"{total / 1e6:.0f}"
        self._began_s = self._last_s = time.monotonic()

    def report(self, n_bytes: int) -> None:
        """Log `n_bytes` and the speed, unless it was done a moment ago."""
        now_s = time.monotonic()
        if now_s - self._last_s < _PROGRESS_EVERY_S:
            return
        self._last_s = now_s
        speed = (n_bytes - self._start) / 1e6 / (now_s - self._began_s)
        logger.info("%s: %.0f of %s MB, %.1f MB/s", self._name, n_bytes / 1e6, self._total, speed)


def _size_bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sync(path: Path) -> None:
    """Make a file's bytes last before its final name does."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
