"""Where a file is, as text: a path of this machine, or a URL of a storage that fsspec reaches."""

import os
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_LOCAL = frozenset(("file", "local"))
_WEB = frozenset(("http", "https"))
# Here the part in front of an @ names a container, and is no secret.
_CONTAINER_FIRST = frozenset(("abfs", "abfss", "wasb", "wasbs"))


def scheme_of(location: str) -> str:
    """The lower-case scheme of a URL of a storage, "" for a path of this machine."""
    if "://" not in location:
        return ""
    match = _SCHEME.match(location)
    scheme = match.group(1).lower() if match else ""
    return "" if scheme in _LOCAL else scheme


def is_web(location: str) -> bool:
    """Whether this is an http(s) URL: one file, whose folder cannot be listed."""
    return scheme_of(location) in _WEB


def local_path(location: str) -> str:
    """The path in a `file://` URL, percent signs resolved; any other text as it is."""
    match = _SCHEME.match(location)
    if match is None or match.group(1).lower() not in _LOCAL:
        return location
    path = location[match.end() :].removeprefix("localhost")
    return os.fsdecode(unquote_to_bytes(os.fsencode(path)))


def absolute(path: str) -> str:
    """A path that holds in any working folder; a `..` stays, since a link may be in front of it."""
    return str(Path(path).absolute())


def join(folder: str, entry: str) -> str:
    """Where an entry of a list or table is: as it says, or below `folder`, which ends in "/"."""
    if entry.startswith("/") or scheme_of(entry):
        return entry
    path = local_path(entry)
    return path if path.startswith("/") else folder + path


def place_of(location: str) -> str:
    """What is reached or not as a whole: the scheme and host or bucket of a URL, "" for paths."""
    scheme = scheme_of(location)
    if not scheme:
        return ""
    return "/".join(without_secrets(location).split("/", 3)[:3])


def folder_of(location: str) -> str:
    """The folder of a file, with its "/"."""
    path = location.partition("?")[0] if is_web(location) else location
    return path[: path.rindex("/") + 1]


def name_of(location: str) -> str:
    """The last part of a location, without the query of a web address."""
    path = location.partition("?")[0].partition("#")[0] if is_web(location) else location
    return path.rstrip("/").rpartition("/")[2]


def without_secrets(url: str) -> str:
    """A URL without user, password and query; without the fragment too where it is of the web.

    On an object store "#" is a letter of a key, and so is "?" where no "name=value" follows.
    """
    if "@" not in url and "?" not in url and "#" not in url:
        return url
    scheme = scheme_of(url)
    start, slashes, rest = url.partition("://")
    before, _, query = rest.partition("?")
    if scheme in _WEB:
        rest = before.partition("#")[0]
    elif "=" in query:
        rest = before
    host, slash, path = rest.partition("/")
    if scheme not in _CONTAINER_FIRST:
        host = host.rpartition("@")[2]
    return start + slashes + host + slash + path


def as_sent(location: str) -> str:
    """A web address without its fragment, which no server gets; others as they are."""
    return location.partition("#")[0] if "#" in location and is_web(location) else location


def bare(location: str) -> str:
    """A path as it is, a URL without user, password and query."""
    return without_secrets(location) if scheme_of(location) else location


def part_below(location: str, prefix: str) -> str | None:
    """What follows the prefix, "" or from a "/" on; None where the location is not below it."""
    prefix = prefix.rstrip("/")
    if not location.startswith(prefix):
        return None
    rest = location[len(prefix) :]
    return rest if rest[:1] in ("", "/") else None


def shown(location: str) -> str:
    """A location as text that may be stored and logged: valid UTF-8 without secrets."""
    return as_text(bare(location))


def as_text(path: str) -> str:
    """Show the bytes of a path that are not UTF-8 as escapes: Parquet holds valid text only."""
    if path.isascii():
        return path
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def to_bytes(location: str) -> bytes:
    """What `ImageSource.path` holds: the bytes of a path, or a URL in UTF-8."""
    return os.fsencode(location) if location.startswith("/") else _utf8(location)


def from_bytes(location: bytes) -> str:
    """Undo `to_bytes`."""
    if location.startswith(b"/"):
        return os.fsdecode(location)
    return location.decode("utf-8", "surrogateescape")


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
