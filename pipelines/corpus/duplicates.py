"""Image ids that occur more than once: refused, left out or numbered, in bounded memory.

Eight bytes of hash are kept for each id. Ids of equal hash are then compared themselves, in passes
over the list, so that two of them are never taken for one.
"""

import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from amg.errors import ConfigError
from amg.inputs.ids import hash_ids
from amg.inputs.sources import ImageSource
from amg.runs.spool import SourceSpool

BATCH = 32_768
_AT_ONCE = 2**22  # ids that one pass compares
_SHOWN = 5
_NUMBER = re.compile(r"[2-9]|[1-9][0-9]{1,17}")

ListIds = Callable[[], Iterable[Sequence[str]]]
"""Lists all ids again, in order and in parts."""


@dataclass(frozen=True, slots=True)
class Later:
    """An id that was there before: in which row, and for which time, from 2 on."""

    row: int
    image_id: str
    nth: int


def find_later(hashes: np.ndarray, list_ids: ListIds) -> Iterator[Later]:
    """Every id that was there before; `hashes` are all ids', sorted."""
    suspects = _repeated(hashes)
    ends = np.searchsorted(hashes, suspects, "right")
    n_rows = int((ends - np.searchsorted(hashes, suspects, "left")).sum())
    n_passes = -(-n_rows // _AT_ONCE)
    for number in range(n_passes):
        yield from _find_among(suspects[number::n_passes], list_ids)


def _find_among(suspects: np.ndarray, list_ids: ListIds) -> Iterator[Later]:
    times: dict[str, int] = {}
    start = 0
    for ids in list_ids():
        for place in np.flatnonzero(_are_in(hash_ids(ids), suspects)).tolist():
            image_id = ids[place]
            nth = times[image_id] = times.get(image_id, 0) + 1
            if nth > 1:
                yield Later(start + place, image_id, nth)
        start += len(ids)


def _repeated(hashes: np.ndarray) -> np.ndarray:
    return np.unique(hashes[1:][hashes[1:] == hashes[:-1]])


def _are_in(values: np.ndarray, in_order: np.ndarray) -> np.ndarray:
    if not len(in_order):
        return np.zeros(len(values), bool)
    places = np.searchsorted(in_order, values)
    return in_order[np.minimum(places, len(in_order) - 1)] == values


def find_taken(hashes: np.ndarray, list_ids: ListIds) -> dict[str, list[int]]:
    """For ids that may occur more than once: which numbers other ids have behind them, sorted."""
    suspects = _repeated(hashes)
    taken: dict[str, set[int]] = {}
    for ids in list_ids() if len(suspects) else ():
        parts = [image_id.rpartition("#") for image_id in ids if "#" in image_id]
        ends = [(base, int(end)) for base, _, end in parts if _NUMBER.fullmatch(end)]
        are_suspect = _are_in(hash_ids([base for base, _ in ends]), suspects)
        for (base, number), is_suspect in zip(ends, are_suspect, strict=True):
            if is_suspect:
                taken.setdefault(base, set()).add(number)
    return {base: sorted(numbers) for base, numbers in taken.items()}


def free_number(nth: int, taken: Sequence[int]) -> int:
    """The number, from 2 on, of the nth image of an id, when some are taken."""
    number = nth
    for other in taken:
        if other > number:
            break
        number += 1
    return number


def refuse_duplicates(hashes: np.ndarray, list_ids: ListIds) -> None:
    """Raise ConfigError naming ids that occur more than once, if any does."""
    n_twice, shown = 0, list[str]()
    for later in find_later(hashes, list_ids):
        if later.nth == 2:
            n_twice += 1
            shown += [repr(later.image_id)] if n_twice <= _SHOWN else []
    if n_twice:
        raise ConfigError(
            f"inputs: {n_twice} image ids occur more than once: {', '.join(shown)}; give the "
            "folder above, a column of unique ids, or --on-duplicate skip or number"
        )


def distinct(
    sources: Iterable[ImageSource], how: str, found: Callable[[int], None]
) -> Iterator[ImageSource]:
    """The sources with the later ones of an id left out ("skip") or numbered ("number").

    "refuse" leaves them as they are, for `refuse_duplicates`. The list is written to a file for
    temporary ones first: only its end says which ids are free. `found` hears how many there were.
    """
    if how == "refuse":
        yield from sources
        return
    with SourceSpool() as spool:
        rows, numbers = _find_rows(spool, sources)
        found(len(rows))
        start = 0
        for batch in spool.batches():
            first, last = np.searchsorted(rows, (start, start + len(batch)))
            later = dict(zip((rows[first:last] - start).tolist(), numbers[first:last], strict=True))
            for place, source in enumerate(batch):
                if place not in later:
                    yield source
                elif how == "number":
                    yield replace(source, image_id=f"{source.image_id}#{later[place]}")
            start += len(batch)


def _find_rows(spool: SourceSpool, sources: Iterable[ImageSource]) -> tuple[np.ndarray, np.ndarray]:
    """Write the sources down; the rows, in order, of those that come later, and their numbers."""
    hashes: list[np.ndarray] = []
    iterator = iter(sources)
    while batch := list(islice(iterator, BATCH)):
        spool.write(batch)
        hashes.append(hash_ids([source.image_id for source in batch]))
    in_order = np.sort(np.concatenate(hashes)) if hashes else np.empty(0, np.uint64)
    taken = find_taken(in_order, spool.ids)
    rows, numbers = array("q"), array("q")
    for later in find_later(in_order, spool.ids):
        rows.append(later.row)
        numbers.append(free_number(later.nth, taken.get(later.image_id, ())))
    order = np.argsort(np.asarray(rows), kind="stable")
    return np.asarray(rows)[order], np.asarray(numbers)[order]
