"""Names of files for images, made from ids that anyone may have chosen.

An id that is a plain relative path keeps it, without the suffix: `a/b.jpg` becomes `a/b`. Any other
(`../x`, names that are too long or not everywhere allowed), and all those that would share a name
with another, become one name without folders that ends in `~` and a hash of the id. No plain name
holds a `~`, so the two kinds never meet.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from functools import cached_property

import numpy as np

_MAX_PART_BYTES = 200  # file systems take 255: formats and temporary files add to the name
_MAX_PATH_BYTES = 1000
_FLAT_BYTES = 80
# Not allowed on some file system, or with a meaning to a shell or a URL.
_UNSAFE = re.compile(r'[\x00-\x1f\x7f\\~:*?"<>|]')
# A folder of such a name could be in the way of a file that a format writes.
_OURS = (".png", ".json", ".txt", ".csv", ".yaml", ".zip")


class Names:
    """The names of a run's images: no two are equal, even where case does not count.

    Takes all planned ids, so that names do not depend on how far the run is. They are read when
    the first name is asked for, and take 8 bytes each.
    """

    def __init__(self, image_ids: Iterable[str]) -> None:
        self._image_ids = image_ids

    @cached_property
    def _shared(self) -> set[int]:
        """Hashes of plain names that two or more ids have."""
        plain = (stem for image_id in self._image_ids if (stem := _plain(image_id)) is not None)
        keys = np.fromiter((hash(_key(stem)) for stem in plain), np.int64)
        keys.sort()
        return set(keys[1:][keys[1:] == keys[:-1]].tolist())

    def __call__(self, image_id: str) -> str:
        """A relative path without suffix, with `/` between folders."""
        stem = _plain(image_id)
        if stem is None or hash(_key(stem)) in self._shared:
            return _flat(image_id)
        return stem


def _plain(image_id: str) -> str | None:
    """The id's path without suffix, None where that is no safe name."""
    folder, slash, name = image_id.lstrip("/").rpartition("/")
    stem = name.rpartition(".")[0] or name
    path = folder + slash + stem
    if _UNSAFE.search(path) or len(path.encode()) > _MAX_PATH_BYTES:
        return None
    return path if all(_is_plain(part) for part in path.split("/")) else None


def _is_plain(part: str) -> bool:
    return (
        part != ""
        and not part.startswith((".", " "))
        and not part.endswith((".", " "))
        and not part.casefold().endswith(_OURS)
        and len(part.encode()) <= _MAX_PART_BYTES
    )


def _flat(image_id: str) -> str:
    digest = hashlib.sha256(image_id.encode()).hexdigest()[:16]
    readable = _UNSAFE.sub("_", image_id.replace("/", "_")).lstrip("._ ")
    start = readable.encode()[:_FLAT_BYTES].decode("utf-8", "ignore")
    return f"{start}~{digest}"


def _key(stem: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", stem).casefold())
