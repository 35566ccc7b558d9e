"""Which images of a run are shown: the extremes of each kind, and a uniform sample."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from amg.view.report.counting import Extremes

SEED = 20230405
SHARE_OF_A_KIND = 10
"""Of N images, N / 10 are kept as extremes of each of the five kinds: half at most are extremes."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The images to show, as rows of the plan. `is_all`: there are no others.

    `rows` rise; `extremes` has some of them for each kind, most extreme first, and `sample` those
    of a uniform sample, in the order of sampling.
    """

    rows: list[int]
    extremes: dict[str, list[int]]
    sample: list[int]
    is_all: bool


def n_extremes(n_images: int) -> int:
    """How many images are kept of each kind where `n_images` may be shown."""
    return max(1, n_images // SHARE_OF_A_KIND)


def choose(committed: Sequence[range], extremes: Mapping[str, Extremes], n_images: int) -> Choice:
    """Choose at most `n_images` of the committed rows, given as ranges that rise.

    Where there is no room for the extremes of all kinds, the first kinds have theirs.
    """
    firsts = np.cumsum([0, *map(len, committed)])
    n_rows = int(firsts[-1])
    is_all = n_rows <= n_images
    ranked = dict.fromkeys(row for found in extremes.values() for row in found.rows)
    chosen = set(list(ranked)[:n_images])
    kept = {kind: [r for r in found.rows if r in chosen] for kind, found in extremes.items()}
    n_sampled = n_rows if is_all else max(0, n_images - len(chosen))
    # Not a choice of the run's: the same run gives the same report.
    places = random.Random(SEED).sample(range(n_rows), n_sampled)  # noqa: S311
    sample = [_row_at(place, firsts, committed) for place in places]
    return Choice(sorted(chosen.union(sample)), kept, sample, is_all)


def _row_at(place: int, firsts: np.ndarray, committed: Sequence[range]) -> int:
    part = int(np.searchsorted(firsts, place, side="right")) - 1
    return committed[part][place - int(firsts[part])]
