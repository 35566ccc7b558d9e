"""Members of a tar, found by its headers alone: nothing is extracted, no data is read."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from amg.errors import ConfigError, ImageError, StorageError

PACKED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tbz2", ".tar.xz", ".txz", ".tar.lzma")
PACKED_SUFFIXES += (".tar.zst", ".tzst", ".tar.lz4", ".zip", ".7z", ".rar")
_PACKED_STARTS = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"7z\xbc")


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar; `name` as os.fsdecode gives it, `is_regular` false for links and devices."""

    name: str
    offset: int
    size: int
    is_regular: bool


def list_members(file: BinaryIO, size_bytes: int | None) -> Iterator[Member]:
    """Everything but folders, in the order of the tar, with constant memory.

    `file` is at its start and can seek; `size_bytes` is its length where known, to find out that
    the last member is cut short.

    Raises ConfigError, which says where, for what is no tar, is damaged, or has sparse members:
    their bytes are not in one piece.
    """
    end_bytes = size_bytes if size_bytes is not None else file.seek(0, 2)
    file.seek(0)
    if file.read(6).startswith(_PACKED_STARTS):
        raise ConfigError("compressed: members cannot be read one by one; decompress it first")
    reader, at = _Headers(file), 0
    while (info := _header_at(reader, at)) is not None:
        after = reader.offset
        if info.size < 0 or after <= at:  # a hostile header could send us round in a loop
            raise ConfigError(f"damaged tar: size {info.size} in the header at byte {at}")
        if info.issparse():
            raise ConfigError(f"{info.name!r} at byte {at} is sparse: write the tar without holes")
        if info.isreg() and info.offset_data + info.size > end_bytes:
            raise ConfigError(f"damaged tar: {info.name!r} at byte {at} is cut short")
        if not info.isdir():
            yield Member(info.name, info.offset_data, info.size, info.isreg())
        at = after


class _Headers(tarfile.TarFile):
    """What `TarInfo.fromtarfile` asks of a TarFile.

    TarFile's own iterator takes a damaged header for the end of the archive, and keeps every
    member in memory: going from header to header ourselves does neither.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.fileobj = file
        self.offset = 0
        self.encoding, self.errors = "utf-8", "surrogateescape"
        self.pax_headers = {}


def _header_at(reader: _Headers, at: int) -> tarfile.TarInfo | None:
    """The member whose header begins at `at`, None at the end; `reader.offset` is the next's."""
    try:
        reader.fileobj.seek(at)
        return tarfile.TarInfo.fromtarfile(reader)
    except (StorageError, ImageError):
        raise
    except Exception as error:  # also ValueError, MemoryError, RecursionError on hostile headers
        kind = type(error).__name__
        if kind == "EOFHeaderError" or (kind == "EmptyHeaderError" and at > 0):
            return None  # a block of zeros ends a tar; some writers leave it out
        raise ConfigError(f"damaged tar, or none: {str(error) or kind} at byte {at}") from error
