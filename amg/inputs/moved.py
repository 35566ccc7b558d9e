"""Places that have moved since a run was planned, as when a disk is mounted elsewhere."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from amg.errors import ConfigError
from amg.inputs.sources import ImageSource
from amg.storage.urls import absolute, bare, from_bytes, local_path, part_below, scheme_of, shown

# A folder's name may have a "=" too, as in `date=2020`.
_SEPARATOR = re.compile(r"=(?=/|[a-z][a-z0-9+.-]+://)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Move:
    """What was planned below `old`, a path or URL, is now below `new`."""

    old: str
    new: str


def parse_moves(texts: Sequence[str]) -> tuple[Move, ...]:
    """`OLD=NEW`, each a path or URL. Raises ConfigError."""
    return tuple(map(_parse, texts))


def _parse(text: str) -> Move:
    match = _SEPARATOR.search(text)
    at = match.start() if match else text.find("=")
    old, new = text[: max(at, 0)], text[at + 1 :]
    if not old or not new:
        raise ConfigError(f"--remap {shown(text)!r}: expected OLD=NEW, two paths or URLs")
    return Move(_place(old), _place(new))


def _place(text: str) -> str:
    place = text if scheme_of(text) else absolute(local_path(text))
    return place.rstrip("/")


def planned_location(location: str, moves: Sequence[Move]) -> str:
    """Where the plan has what is named so now, or was."""
    move, rest = _find(location, moves, "new")
    return location if move is None else move.old + rest


def present_location(location: str, moves: Sequence[Move]) -> str:
    """Where the bytes are of what is named so now, or was; a query stays."""
    move, rest = _find(location, moves, "old")
    if move is None:
        return location
    _, mark, query = location.partition("?") if scheme_of(location) else ("", "", "")
    return move.new + rest + mark + query


def with_planned_names(source: ImageSource, moves: Sequence[Move]) -> ImageSource:
    """The source with the address that the plan has; an id that is an address changes with it."""
    move, _ = _find(from_bytes(source.path), moves, "new")
    if move is None:
        return source
    uri = shown(move.old) + source.uri.removeprefix(shown(move.new))
    image_id = uri if source.image_id == source.uri else source.image_id
    return replace(source, image_id=image_id, uri=uri)


def _find(location: str, moves: Sequence[Move], side: str) -> tuple[Move | None, str]:
    """The move that has this location below its `side`, and what follows there.

    One of its places may lie below the other: the longest that fits is meant.
    """
    location = bare(location)
    best: tuple[int, Move | None, str] = (-1, None, "")
    for move in moves:
        for name, place in (("old", bare(move.old)), ("new", bare(move.new))):
            rest = part_below(location, place)
            if rest is not None and len(place) > best[0]:
                best = (len(place), move if name == side else None, rest)
    return best[1:]
