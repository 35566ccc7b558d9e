"""What a failure to read means: the image's own fault, which its row says, or the storage's."""

from amg.errors import ImageError, StorageError
from amg.storage.access import (
    http_status,
    is_no_address,
    is_passing,
    is_passing_status,
    is_refusal,
)
from amg.storage.urls import is_web, scheme_of, shown


def fault(error: Exception, location: str) -> ImageError | StorageError:
    """What a failure to read means: the image's own fault, or the storage's."""
    if isinstance(error, ImageError | StorageError):
        return error
    if scheme_of(location):
        return remote_fault(error, location)
    return local_fault(error, location)


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

    A web server that refuses (401, 403) speaks of one address among many, whose signature has run
    out, say: "unreachable". An object store may mean one object, or all of them.
    """
    if isinstance(error, ImageError | StorageError):
        return error
    status = http_status(error)
    if isinstance(error, FileNotFoundError | NotADirectoryError) or status in (404, 410):
        return ImageError("missing", "no such file")
    if isinstance(error, IsADirectoryError):
        return ImageError("decode_error", "not a regular file")
    if is_no_address(error):
        return ImageError("missing", "no address that this storage knows")
    refused = is_refusal(error, status)
    if is_web(url) and status and status >= 300 and not is_passing_status(status):
        kind = "unreachable" if refused else "missing"
        return ImageError(kind, f"the server answers {status}")
    reason = type(error).__name__ + (f" {status}" if status else "")
    # What web errors say quotes the address, with the signature in it.
    said = "" if is_web(url) else " ".join(str(error).split())[:200]
    text = f"{shown(url)}: {reason}" + (f": {said}" if said else "")
    return StorageError(text, passing=not refused)
