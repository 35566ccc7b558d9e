"""How a storage is reached, and which of its failures may pass."""

import errno
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from amg.errors import ConfigError
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
_REFUSALS = frozenset((401, 403))
_NO_ADDRESS = frozenset(("InvalidURL", "ParamValidationError", "InvalidUrlClientError"))


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
    if is_web(url):
        options = {"client_kwargs": {"timeout": _web_timeout()}, **options}
    return kind(**kind._get_kwargs_from_urls(url), **options), str(kind._strip_protocol(url))


def _web_timeout() -> Any:
    """A server that is dead, or only keeps the connection, takes no more than its own time."""
    from aiohttp import ClientTimeout  # noqa: PLC0415 - an extra

    return ClientTimeout(total=300, sock_connect=20, sock_read=30)


def is_known(url: str) -> bool:
    """Whether fsspec knows the scheme of a URL, be its package installed or not."""
    from fsspec.registry import known_implementations, registry  # noqa: PLC0415

    scheme = scheme_of(url)
    return scheme in known_implementations or scheme in registry


def is_passing(error: Exception) -> bool:
    """Whether what this machine's file system says may be over when it is asked again."""
    return isinstance(error, OSError) and error.errno in _PASSING


def is_passing_status(status: int) -> bool:
    """Whether a web server that answers so may answer otherwise when it is asked again."""
    return status >= 500 or status in _WEB_PASSING


def is_refusal(error: Exception, status: int | None) -> bool:
    """Whether a storage answers that we may not: asking again at once does not help."""
    return isinstance(error, PermissionError) or status in _REFUSALS


def is_no_address(error: Exception) -> bool:
    """Whether a storage's client says that what it was given is no address of its kind."""
    return isinstance(error, UnicodeError) or type(error).__name__ in _NO_ADDRESS


def http_status(error: BaseException | None) -> int | None:
    """The status code in an error of aiohttp, botocore, gcsfs or Azure, or in its cause."""
    for _ in range(5):  # causes of causes: far enough for all of them
        if error is None or type(error).__name__ == _CUT_SHORT:
            return None
        # One by one: aiohttp warns who asks for its `code`.
        for value in chain((getattr(error, n, None) for n in _STATUS_NAMES), [_boto_status(error)]):
            if isinstance(value, int | str) and str(value).isdecimal() and 100 <= int(value) < 600:
                return int(value)
        error = error.__cause__
    return None


_CUT_SHORT = "ClientPayloadError"
"""aiohttp's error for a body that ends too soon: its cause has a status that no server sent."""
_STATUS_NAMES = ("status", "status_code", "code")


def _boto_status(error: BaseException) -> object:
    response = getattr(error, "response", None)
    metadata = response.get("ResponseMetadata") if isinstance(response, dict) else None
    return metadata.get("HTTPStatusCode") if isinstance(metadata, dict) else None
