"""Files below a folder, here or on a storage, in one order: a folder's files before its folders."""

import fnmatch
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from amg.errors import ConfigError, ImageError
from amg.inputs.faults import local_fault, remote_fault
from amg.storage.access import connect
from amg.storage.retry import read_with_backoff
from amg.storage.urls import as_text, shown

# fmt: off
IMAGE_SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".tif", ".tiff",
    ".bmp", ".dib", ".gif", ".avif", ".heic", ".heif", ".hif",
))
# fmt: on
MAGIC = re.compile(r"[*?\[]")

_SNIFF_BYTES = 32
_HEIF_BRANDS = frozenset(b"avif avis heic heix heim heis hevc hevx mif1 msf1".split())
_BMP_HEADER_BYTES = frozenset((12, 16, 40, 52, 56, 64, 108, 124))
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True, slots=True)
class Found:
    """A file: where it is, its name below the folder, both as text too, and its size if known.

    `glob` is the pattern that took it, EVERYTHING inside a folder that is walked in whole.
    """

    location: str
    relative: str
    name: str
    uri: str
    size: int | None = None
    glob: "Glob | None" = None


@dataclass(frozen=True, slots=True)
class PassedOver:
    """Folders called `name` that lie beside files with all of these names: no images for us."""

    name: str
    beside: frozenset[str]


class Folder(Protocol):
    """What the walk asks of a folder of this machine or of a storage. `root` ends in "/"."""

    root: str
    is_local: bool

    def entries(
        self, relative: str, follow_links: bool
    ) -> tuple[list[tuple[str, int | None]], list[str]]:
        """Names and sizes of the files in a folder below, and names of its folders, sorted."""
        ...


class LocalFolder:
    """A folder of this machine."""

    is_local = True

    def __init__(self, path: str) -> None:
        self.root = path.rstrip("/") + "/"

    def entries(
        self, relative: str, follow_links: bool
    ) -> tuple[list[tuple[str, int | None]], list[str]]:
        """See `Folder`. Sizes are left out: asking for each is slow on a network's file system.

        Raises ConfigError for a folder that cannot be listed: its images must not be lost in
        silence.
        """
        files: list[tuple[str, int | None]] = []
        folders: list[str] = []
        try:
            with os.scandir(self.root + relative) as entries:
                for entry in entries:
                    if not _is_folder(entry):
                        files.append((entry.name, None))
                    elif follow_links or not entry.is_symlink():
                        folders.append(entry.name)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ConfigError(f"{as_text(self.root + relative)!r}: {reason}") from error
        return sorted(files), sorted(folders)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, say: not a folder, so a file that cannot be read
        return False


class RemoteFolder:
    """A folder of a storage: what keys have in common up to a "/", on an object store."""

    is_local = False

    def __init__(self, url: str) -> None:
        self.root = url.rstrip("/") + "/" if url.partition("://")[2].strip("/") else url
        # One listing of millions of keys is enough in memory: fsspec would keep them all.
        self._files, path = connect(self.root, use_listings_cache=False)
        self._path = path.rstrip("/") + "/"

    def entries(
        self, relative: str, follow_links: bool
    ) -> tuple[list[tuple[str, int | None]], list[str]]:
        """See `Folder`; raises StorageError if the storage fails, ConfigError if it is not there.

        One folder's listing is held at once.
        """
        del follow_links  # no store has any
        files: list[tuple[str, int | None]] = []
        folders: list[str] = []
        for info in self._list(relative):
            name = str(info["name"]).removeprefix(self._path + relative)
            is_folder = info["type"] == "directory"
            if is_folder and not name and info.get("StorageClass") == "DIRECTORY":
                where = shown(self.root + relative)  # s3fs cannot go in: it would come here again
                raise ConfigError(f"{where!r}: keys with '//' cannot be listed; give a list")
            if is_folder and name:
                folders.append(name.rstrip("/"))
            elif name and not name.endswith("/"):  # not the mark of an empty folder
                files.append((name, info.get("size")))
        return sorted(files, key=lambda file: file[0]), sorted(set(folders))

    def _list(self, relative: str) -> list[dict[str, Any]]:
        url = self.root + relative

        def ls() -> list[dict[str, Any]]:
            try:
                return self._files.ls((self._path + relative).rstrip("/"), detail=True)
            except Exception as error:  # every storage has its own: see remote_fault
                raise remote_fault(error, url) from None

        try:
            return read_with_backoff(ls)
        except ImageError as fault:
            raise ConfigError(f"{shown(url)!r}: {fault}") from None


class Glob:
    """A pattern of paths below a folder: `*`, `?` and `[...]` in a name, `**` for any folders.

    As in a shell, no magic matches the dot that begins a hidden file's name.
    """

    def __init__(self, pattern: str) -> None:
        self._parts = [part for part in pattern.split("/") if part not in ("", ".")]
        self._regexes = [re.compile(fnmatch.translate(part)) for part in self._parts]
        self._last = len(self._parts) - 1
        self.is_deep = "**" in self._parts
        # `*` and `**` alone take every name there is, `*.dat` says what is wanted.
        self.is_open = self._parts[-1] in ("*", "**", "*.*")
        self.start = self._with_skips({0})

    def below(self, places: frozenset[int], name: str) -> frozenset[int]:
        """Which parts may come next in a folder of this name; none: no match can be in it."""
        onwards = {i for i in places if self._parts[i] == "**" and name[0] != "."}
        steps = {i + 1 for i in places if self._parts[i] != "**" and self._fits(i, name)}
        return self._with_skips(onwards | {i for i in steps if i <= self._last})

    def takes(self, places: frozenset[int], name: str) -> bool:
        """Whether a name here is a match."""
        return self._last in places and self._fits(self._last, name)

    def _fits(self, part: int, name: str) -> bool:
        if name[0] == "." and self._parts[part][0] != ".":
            return False
        return self._parts[part] == "**" or self._regexes[part].match(name) is not None

    def _with_skips(self, places: set[int]) -> frozenset[int]:
        """`**` stands for no folder at all too."""
        for i in range(self._last):
            if i in places and self._parts[i] == "**":
                places.add(i + 1)
        return frozenset(places)


EVERYTHING = Glob("**")


def walk(
    folder: Folder, glob: Glob = EVERYTHING, passed_over: PassedOver | None = None
) -> Iterator[Found]:
    """Files that match, lazily; a folder that matches a glob without `**` is walked in whole.

    In a folder that is walked in whole, what is hidden comes too, so that it can be counted:
    files, and folders with a "/" at the end of their name, which are not entered. Links to
    folders are followed only where a pattern names them, so that no loop can be. In a folder
    that is walked in whole, what is `passed_over` is not entered.

    Raises ConfigError, or StorageError, for a folder that cannot be listed.
    """
    root_uri = shown(folder.root)
    stack = [("", glob, glob.start)]
    while stack:
        relative, here, places = stack.pop()
        files, folders = folder.entries(relative, not here.is_deep)
        if here is EVERYTHING:
            if passed_over and {name for name, _ in files} >= passed_over.beside:
                folders = [name for name in folders if name != passed_over.name]
            files.extend((name + "/", None) for name in folders if name[0] == ".")
        for name, size in files:
            if here is EVERYTHING or here.takes(places, name):
                path = relative + name
                text = as_text(path)
                yield Found(folder.root + path, path, text, root_uri + text, size, here)
        below = []
        for name in folders:
            if not here.is_deep and here.takes(places, name):
                below.append((f"{relative}{name}/", EVERYTHING, EVERYTHING.start))
            elif deeper := here.below(places, name):
                below.append((f"{relative}{name}/", here, deeper))
        stack.extend(reversed(below))


def suffix_of(name: str) -> str:
    """The suffix of a path's last part in lower case, with its dot, "" if it has none."""
    name = name[name.rfind("/") + 1 :]
    dot = name.rfind(".")
    return name[dot:].lower() if dot > 0 else ""


def is_hidden(name: str) -> bool:
    """Whether the last part of a path, a folder's with its "/", begins with a dot."""
    return name[name.rfind("/", 0, -1) + 1] == "."


def is_image(found: Found, is_local: bool) -> bool:
    """Whether a file found in a folder is taken: by its suffix, or by how it begins.

    On a storage, where looking costs a request, files without any suffix are taken instead.
    """
    if is_hidden(found.relative):
        return False
    suffix = suffix_of(found.relative)
    if suffix in IMAGE_SUFFIXES:
        return True
    if not is_local:
        return not suffix
    return _begins_like_an_image(found.location, has_suffix=bool(suffix))


def _begins_like_an_image(path: str, has_suffix: bool) -> bool:
    try:
        if not Path(path).is_file():  # a pipe is never opened: that would block for ever
            return False
        with Path(path).open("rb", buffering=0) as file:
            start = file.read(_SNIFF_BYTES)
    except OSError as error:
        if isinstance(fault := local_fault(error, path), ImageError):
            return False
        raise fault from error
    return looks_like_image(start, has_suffix)


def looks_like_image(start: bytes, has_suffix: bool = False) -> bool:
    """Whether the first 32 bytes of a file are those of a format that is read.

    has_suffix: a name that is not an image's. Then TIFF does not count: photographers' raw
    files are TIFFs, with a small preview as the picture.
    """
    if start.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")):
        return True
    if start.startswith(b"RIFF"):
        return start[8:12] == b"WEBP"
    if start.startswith(b"BM"):
        return int.from_bytes(start[14:18], "little") in _BMP_HEADER_BYTES
    if start.startswith(_TIFF_STARTS):
        return not has_suffix
    return start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS
