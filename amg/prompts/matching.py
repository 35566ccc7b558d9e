"""Which planned image a prompt is about: by its id, else by its file's name.

Indexes take twelve bytes for each planned image and way of naming it; they are made when the first
prompt needs them. Whether names truly agree is looked at later, where prompts and images meet in
their order: equal hashes alone prove nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from amg.errors import ConfigError
from amg.inputs.ids import hash_ids
from amg.inputs.sources import ImageSource

NOWHERE = -1
_MOST_OF_A_NAME = 64  # planned images of one name that are looked at


class Planned(Protocol):
    """The planned images."""

    def batches(self) -> Iterator[list[ImageSource]]:
        """All of them, in order and in parts."""
        ...

    def read(self, rows: range) -> list[ImageSource]:
        """Those of a range of rows."""
        ...


@dataclass(frozen=True, slots=True)
class _Way:
    """One way of naming: what it makes of an image and of a prompt's key; "" for nothing."""

    of_image: Callable[[ImageSource], str]
    of_key: Callable[[str], str]


def _last(path: str) -> str:
    """The name of a file, of a member of a tar too."""
    return path.rpartition("::")[2].rpartition("/")[2]


def _without_suffix(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    stem, dot, _ = name.rpartition(".")
    return folder + slash + (stem if dot and stem else name)


def _number(name: str) -> str:
    """COCO's results name 000000000139.jpg by its number."""
    stem = _without_suffix(name)
    return (stem.lstrip("0") or "0") if stem.isascii() and stem.isdecimal() else ""


_WAYS = (
    _Way(lambda image: image.image_id, lambda key: key),
    _Way(lambda image: _without_suffix(image.image_id), lambda key: key),
    _Way(lambda image: _last(image.uri), _last),
    _Way(lambda image: _without_suffix(_last(image.uri)), _last),
    _Way(lambda image: _without_suffix(_last(image.uri)), lambda key: _without_suffix(_last(key))),
    _Way(lambda image: _number(_last(image.uri)), lambda key: _number(_last(key))),
)


def agrees(key: str, image: ImageSource) -> bool:
    """Whether a prompt's key can mean this image.

    A key with folders has to be the end of the image's address, with or without suffix, but for an
    absolute one, which may come from another machine: train/1.jpg is not val/1.jpg.
    """
    if key in (image.image_id, _without_suffix(image.image_id)):
        return True
    folder, slash, _ = key.rpartition("/")
    if slash and not (key.startswith("/") or "://" in key):
        where = image.uri.replace("::", "/").rpartition("/")[0]
        if not f"/{where}".endswith(f"/{folder}"):
            return False
    return any(way.of_image(image) == way.of_key(key) != "" for way in _WAYS)


class Matching:
    """Finds the planned rows of prompts' keys."""

    def __init__(self, planned: Planned) -> None:
        self._planned = planned
        self._indexes: list[tuple[np.ndarray, np.ndarray]] = []

    def rows_of(self, keys: pa.Array) -> np.ndarray:
        """The planned row of each key, (N,) int64: NOWHERE for one that means no image.

        Raises ConfigError for a key that may mean several, naming two of them.
        """
        encoded = keys.dictionary_encode()
        rows = self._rows_of(encoded.dictionary.to_pylist())
        return rows[encoded.indices.to_numpy()]

    def _rows_of(self, keys: Sequence[str]) -> np.ndarray:
        rows = np.full(len(keys), NOWHERE, np.int64)
        for number, way in enumerate(_WAYS):
            left = np.flatnonzero(rows == NOWHERE)
            if not len(left):
                break
            names = [way.of_key(keys[i]) for i in left.tolist()]
            found, places, spans = self._look_up(number, names)
            for place, span in zip(places, spans, strict=True):
                rows[left[place]] = self._choose(number, keys[int(left[place])], span)
            is_found = found != NOWHERE
            rows[left[is_found]] = found[is_found]
        return rows

    def _look_up(
        self, number: int, names: Sequence[str]
    ) -> tuple[np.ndarray, list[int], list[range]]:
        """Rows of names that one image has; and places of names of several, with their range."""
        hashes, rows = self._index(number)
        wanted = hash_ids(names)
        first = np.searchsorted(hashes, wanted, "left")
        count = np.searchsorted(hashes, wanted, "right") - first
        count[np.fromiter((not name for name in names), bool, len(names))] = 0
        found = np.full(len(names), NOWHERE, np.int64)
        found[count == 1] = rows[first[count == 1]]
        several = np.flatnonzero(count > 1).tolist()
        return found, several, [range(first[i], first[i] + count[i]) for i in several]

    def _choose(self, number: int, key: str, span: range) -> int:
        """Of several images of one name the one whose folders are the key's too."""
        rows = np.sort(self._indexes[number][1][span.start : span.stop])
        if len(rows) > _MOST_OF_A_NAME:
            raise ConfigError(
                f"{key!r} is the name of {len(rows)} planned images: name them by their ids"
            )
        images = {row: self._planned.read(range(row, row + 1))[0] for row in rows.tolist()}
        fitting = {row: image for row, image in images.items() if agrees(key, image)}
        if len(fitting) == 1:
            return next(iter(fitting))
        if not fitting:
            return NOWHERE
        one, other = [repr(image.image_id) for image in fitting.values()][:2]
        raise ConfigError(f"{key!r} may be {one} or {other}: name images by their ids")

    def _index(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Hashes in order, and the row of each."""
        while len(self._indexes) <= number:
            way = _WAYS[len(self._indexes)]
            parts = [
                hash_ids([way.of_image(image) for image in batch])
                for batch in self._planned.batches()
            ]
            hashes = np.concatenate(parts) if parts else np.empty(0, np.uint64)
            order = np.argsort(hashes, kind="stable").astype(np.int32)
            self._indexes.append((hashes[order], order))
        return self._indexes[number]
