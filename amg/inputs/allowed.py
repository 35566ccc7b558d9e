"""Which places a list or table may name: who wrote it may be a stranger, and workers see much.

What is compared is text: links, and redirects of web servers, are followed where they lead.
"""

import os
from collections.abc import Sequence
from urllib.parse import unquote

from amg.storage.urls import (
    absolute,
    bare,
    folder_of,
    is_web,
    local_path,
    part_below,
    scheme_of,
    shown,
)

ANYWHERE = ("",)
"""Allows every place."""
# These of fsspec's file systems lead to files of this machine, or to any other file system.
_LEAD_BACK = frozenset(
    (
        "async-wrapper", "asynclocal", "asyncwrapper", "blockcache", "cached", "dir", "dvc",
        "filecache", "generic", "git", "libarchive", "reference", "simplecache", "tar", "zip",
    )
)  # fmt: skip


def settle(allow: Sequence[str] | None) -> tuple[str, ...] | None:
    """Prefixes as they hold in any working folder, without secrets."""
    if allow is None:
        return None
    return tuple(bare(a) if scheme_of(a) else absolute(local_path(a)) for a in allow)


def refusal(location: str, allow: Sequence[str] | None, root: str | None) -> str | None:
    """Why this place may not be named, None if it may.

    allow: what its path or URL has to begin with, as `settle` gives it. None: anything, but for a
    table, whose folder is `root`: a place in that, or a remote one.
    """
    if allow is None:
        if root is None or _is_remote(location) or _is_in(location, root):
            return None
        problem = "is neither in the table's folder nor remote"
    else:
        if any(not prefix or _begins_with(location, prefix) for prefix in allow):
            return None
        problem = f"begins with no allowed prefix ({', '.join(allow)})"
    return f"{shown(location)!r} {problem}: allow it with --allow {folder_of(shown(location))}"


def _is_remote(location: str) -> bool:
    scheme = scheme_of(location)
    return scheme != "" and scheme not in _LEAD_BACK


def _is_in(location: str, root: str) -> bool:
    if location.startswith(root) and ".." not in location[len(root) :]:
        return True
    return _begins_with(location, root)


def _begins_with(location: str, prefix: str) -> bool:
    """Textually, whatever `..` and escapes a URL's server makes of it or leaves."""
    if scheme_of(location) != scheme_of(prefix):
        return False
    forms = zip(_forms(location), _forms(prefix), strict=True)
    return all(part_below(form, of_prefix) is not None for form, of_prefix in forms)


def _forms(location: str) -> tuple[str, ...]:
    """A path with `..` resolved; a URL as it is, and with `..` and escapes resolved."""
    scheme = scheme_of(location)
    if not scheme:
        return (_resolved(location),)
    host, slash, path = bare(location).partition("://")[2].partition("/")
    start = f"{scheme}://{host.lower() if is_web(location) else host}"
    plain = unquote(path).replace("\\", "/") if is_web(location) else path
    return start + slash + path, start + (_resolved("/" + plain) if slash else "")


def _resolved(path: str) -> str:
    return "/" + os.path.normpath(path).lstrip("/")
