"""What a run reads: files, folders, globs, lists, tables and tars, here or on a storage."""

import io
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISDIR

from amg.errors import AmgError, ConfigError, ImageError, StorageError
from amg.inputs.allowed import refusal
from amg.inputs.faults import remote_fault
from amg.inputs.files import buffered, open_file
from amg.inputs.folders import (
    EVERYTHING,
    IMAGE_SUFFIXES,
    MAGIC,
    Folder,
    Found,
    Glob,
    LocalFolder,
    PassedOver,
    RemoteFolder,
    is_hidden,
    is_image,
    suffix_of,
    walk,
)
from amg.inputs.tables import TABLE_SUFFIXES, SourceOptions, list_rows
from amg.inputs.tars import PACKED_SUFFIXES, list_members
from amg.storage.access import connect, missing_package
from amg.storage.opened import OpenFile
from amg.storage.retry import read_with_backoff
from amg.storage.urls import (
    absolute,
    folder_of,
    is_web,
    join,
    local_path,
    name_of,
    scheme_of,
    shown,
    to_bytes,
)

__all__ = ["IMAGE_SUFFIXES", "ImageSource", "SourceOptions", "list_sources"]

LIST_SUFFIXES = (".txt", ".lst")
TAR_SUFFIX = ".tar"

_BY_NAME = SourceOptions()
_MAX_LINE_BYTES = 2**16
_SUFFIXES_SHOWN = 8
_TAR_BUFFER_BYTES = 4096  # of local tars: members lie between the headers
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ImageSource:
    """One planned image: its id in the results, and where its bytes are.

    `image_id` and `uri` are text that any reader can decode, without user, password or query;
    `path` is a local path, absolute, or a complete URL in UTF-8. A member of a tar has `offset`
    and `size` in bytes; a cell of a table has `column` and `row`. `size` of a whole file is set
    where it is known without asking for it. `withheld`: `path` has lost its user, password or
    query, and may not be readable without.
    """

    image_id: str
    uri: str
    path: bytes
    offset: int | None = None
    size: int | None = None
    column: str | None = None
    row: int | None = None
    withheld: bool = False


@dataclass
class _Skipped:
    """Files of folders that are no images, by suffix, and a first one that holds images."""

    counts: Counter[str] = field(default_factory=Counter)
    first_pack: str | None = None

    def add(self, relative: str) -> None:
        suffix = suffix_of(relative)
        if is_hidden(relative):
            label = "hidden folders" if relative.endswith("/") else "hidden files"
        else:
            label = suffix if suffix[1:].isalnum() and len(suffix) <= 12 else "others"
            if self.first_pack is None and _is_pack(relative):
                self.first_pack = relative
        self.counts[label] += 1

    def __str__(self) -> str:
        common = self.counts.most_common(_SUFFIXES_SHOWN)
        text = ", ".join(f"{label} {count}" for label, count in common)
        return f"{self.counts.total()} files that are no images: {text}" + (
            ", ..." if len(self.counts) > _SUFFIXES_SHOWN else ""
        )


def list_sources(
    inputs: Sequence[str | os.PathLike[str]],
    options: SourceOptions = _BY_NAME,
    passed_over: PassedOver | None = None,
    allow: Sequence[str] | None = None,
) -> Iterator[ImageSource]:
    """List the images behind all inputs, lazily and in a stable order.

    - A file is taken whatever its name, which is its id.
    - A folder gives the images below it, each folder's files before its folders, by name, with
      the path relative to the folder as id. Images are known by their suffix; of other local
      files, by how they begin; on a storage, files without a suffix are taken. Hidden ones, links
      to folders, and what is `passed_over` are left out. A summary of what was skipped is logged.
    - A glob (`*`, `?`, `[...]`, `**`) gives what matches, with ids relative to the folder in
      front of the first part with magic. A local path that exists is never a glob.
    - A list (.txt, .lst) has a path or URL a line, UTF-8 or the bytes of a local name, with lines
      that begin with "#" as comments. Its lines are the ids; relative ones begin at its folder.
      Nothing is looked up: entries that are not there become rows that say so.
    - A table (.parquet, .arrow, .feather) names images in a column or holds them in one.
    - A tar gives its members by range, with `NAME.tar::MEMBER` as id.

    All inputs are looked at before the first is listed. Ids may occur twice: the plan checks.

    allow: prefixes, from `settle`, of what lists and tables may name (see `refusal`).

    Raises ConfigError naming the input that is not there, cannot be listed, is damaged, or has no
    image, and the row or line that names what it may not; StorageError if a storage fails.
    """
    expanders = [_Input(os.fspath(item), options, passed_over, allow) for item in inputs]
    if not expanders:
        raise ConfigError("inputs: none given")
    skipped = Counter[str]()
    for expander in expanders:
        yield from expander.sources()
        skipped += expander.skipped.counts
    if skipped:
        _log.info("skipped %s", _Skipped(skipped))


class _Input:
    """One input, found to be there."""

    def __init__(
        self,
        item: str,
        options: SourceOptions,
        passed_over: PassedOver | None,
        allow: Sequence[str] | None,
    ) -> None:
        self._shown = shown(item)
        self._options = options
        self._allow = allow
        self._passed_over = passed_over
        self.skipped = _Skipped()
        try:
            self._folder, self._glob, self._file = _look_at(item)
        except (ConfigError, ImageError) as error:
            raise self._error(error) from error

    def sources(self) -> Iterator[ImageSource]:
        """The images of this input; raises as `list_sources`."""
        try:
            sources = self._expand()
            first = next(sources, None)
            if first is None:
                raise ConfigError(self._no_image())
            yield first
            yield from sources
        except (ConfigError, ImageError) as error:
            raise self._error(error) from error
        except io.UnsupportedOperation as error:
            raise self._error(ConfigError(str(error))) from error

    def _expand(self) -> Iterator[ImageSource]:
        if self._folder is None:
            assert self._file is not None
            yield from self._from_file(self._file)
        else:
            for found in walk(self._folder, self._glob, self._passed_over):
                yield from self._from_match(found, self._folder.is_local)

    def _from_match(self, found: Found, is_local: bool) -> Iterator[ImageSource]:
        """What a pattern names is taken as it is given; of the rest, what is known to be an image.

        An open pattern, such as `photos/*`, names nothing, but takes tables and tars.
        """
        if found.glob is not EVERYTHING:
            is_open = found.glob is not None and found.glob.is_open
            if not is_open or (_is_pack(found.relative) and not is_hidden(found.relative)):
                yield from self._from_file(found)
                return
        if is_image(found, is_local):
            yield _whole(found)
        else:
            self.skipped.add(found.relative)

    def _from_file(self, found: Found) -> Iterator[ImageSource]:
        suffix = suffix_of(found.relative)
        if found.relative.lower().endswith(PACKED_SUFFIXES):
            message = "packed: members cannot be read one by one; unpack it, or write a .tar"
            raise ConfigError(f"{found.uri!r}: {message}")
        if suffix in LIST_SUFFIXES:
            sources = _from_list(found, self._allow)
        elif suffix in TABLE_SUFFIXES:
            sources = _from_table(found, self._options, self._allow)
        elif suffix == TAR_SUFFIX:
            sources = _from_tar(found, self.skipped)
        else:
            yield _whole(found)
            return
        try:
            yield from sources
        except (ConfigError, ImageError) as error:
            raise ConfigError(f"{found.uri!r}: {error}") from error

    def _no_image(self) -> str:
        if pack := self.skipped.first_pack:
            pattern = ("**/*" if "/" in pack else "*") + suffix_of(pack)
            return f"no image, but tables or tars: give '{self._shown.rstrip('/')}/{pattern}'"
        if self._glob is not EVERYTHING and self._folder and not self.skipped.counts:
            return "no such file, and no file matches"
        return f"no image ({' '.join(sorted(IMAGE_SUFFIXES))})"

    def _error(self, error: AmgError | ValueError) -> ConfigError:
        text = str(error)
        is_named = text.startswith(repr(self._shown))
        return ConfigError(f"inputs: {text if is_named else f'{self._shown!r}: {text}'}")


def _look_at(item: str) -> tuple[Folder | None, Glob, Found | None]:
    """A folder and what is wanted of it, or a file.

    Raises ConfigError if it is not there; StorageError if its storage cannot be asked.
    """
    if scheme_of(item):
        return _look_at_url(item)
    path = absolute(local_path(item))
    try:
        status = Path(path).stat()
    except (OSError, ValueError) as error:
        if MAGIC.search(path) and not os.path.lexists(path.replace("\0", "")):
            base, pattern = _split_glob(path)
            return LocalFolder(base), Glob(pattern), None
        raise ConfigError(getattr(error, "strerror", None) or str(error)) from error
    if S_ISDIR(status.st_mode):
        return LocalFolder(path), EVERYTHING, None
    name = name_of(path)
    return None, EVERYTHING, Found(path, name, shown(name), shown(path), status.st_size)


def _look_at_url(url: str) -> tuple[Folder | None, Glob, Found | None]:
    files, path = connect(url)
    try:
        info = files.info(path)
    except Exception as error:  # every storage has its own: see remote_fault
        fault = remote_fault(error, url)
    else:
        if info["type"] == "directory":
            return RemoteFolder(url), EVERYTHING, None
        name = name_of(url)
        if not name:
            raise ConfigError("an address of a folder: give its files, or a list")
        return None, EVERYTHING, Found(url, name, shown(name), shown(url), info.get("size"))
    if isinstance(fault, StorageError):
        raise fault
    if not is_web(url) and MAGIC.search(url):
        base, pattern = _split_glob(url)
        return RemoteFolder(base), Glob(pattern), None
    raise ConfigError(str(fault))


def _split_glob(location: str) -> tuple[str, str]:
    """The folder in front of the first part with magic, with its "/", and the rest."""
    match = MAGIC.search(location)
    assert match is not None
    end = location.rindex("/", 0, match.start()) + 1
    return location[:end], location[end:]


def _is_pack(name: str) -> bool:
    suffix = suffix_of(name)
    return suffix in TABLE_SUFFIXES or suffix == TAR_SUFFIX


def _open(found: Found) -> OpenFile:
    return read_with_backoff(lambda: open_file(found.location))


def _whole(found: Found) -> ImageSource:
    return ImageSource(found.name, found.uri, to_bytes(found.location), None, found.size)


def _from_list(found: Found, allow: Sequence[str] | None) -> Iterator[ImageSource]:
    """Raises ConfigError for a file that is no list of lines, or names what it cannot."""
    folder = folder_of(found.location)
    with closing(_open(found)) as raw:
        for number, line in enumerate(buffered(raw), start=1):
            entry = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            entry = entry.rstrip(b"\r\n")
            if not entry.strip() or entry.startswith(b"#"):
                continue
            if b"\0" in entry or len(entry) > _MAX_LINE_BYTES:
                raise ConfigError(f"line {number} is no path: a list is text in UTF-8")
            text = entry.decode("utf-8", "surrogateescape")
            location = join(folder, text)
            if problem := refusal(location, allow, None):
                raise ConfigError(f"line {number}: {problem}")
            yield _entry(location, shown(text))


def _entry(location: str, image_id: str) -> ImageSource:
    """What a list or table names; raises ConfigError if a package for its URL is missing."""
    scheme = scheme_of(location)
    if scheme and (problem := missing_package(scheme)):
        raise ConfigError(problem)
    return ImageSource(image_id, shown(location), to_bytes(location))


def _from_table(
    found: Found, options: SourceOptions, allow: Sequence[str] | None
) -> Iterator[ImageSource]:
    folder, path = folder_of(found.location), to_bytes(found.location)
    with closing(_open(found)) as file:
        columns, rows = list_rows(file, options)
        _log.info("%s: reads %s", found.uri, columns)
        for row in rows:
            if row.uri is not None:
                location = join(folder, row.uri)
                if problem := refusal(location, allow, folder):
                    raise ConfigError(f"row {row.number}: {problem}")
                yield _entry(location, row.image_id or shown(row.uri))
            else:
                image_id = row.image_id or f"{found.name}::{row.number}"
                uri = f"{found.uri}::{row.number}"
                yield ImageSource(image_id, uri, path, column=columns.image, row=row.number)


def _from_tar(found: Found, skipped: _Skipped) -> Iterator[ImageSource]:
    path = to_bytes(found.location)
    with closing(_open(found)) as raw:
        file = buffered(raw, _TAR_BUFFER_BYTES)
        for member in list_members(file, raw.size_bytes):
            is_wanted = suffix_of(member.name) in IMAGE_SUFFIXES and not is_hidden(member.name)
            if not is_wanted or not member.is_regular:
                skipped.add(member.name)
                continue
            name = shown(member.name) if "://" not in member.name else member.name
            image_id, uri = f"{found.name}::{name}", f"{found.uri}::{name}"
            yield ImageSource(image_id, uri, path, member.offset, member.size)
