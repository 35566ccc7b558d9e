"""A look at a run under way, for who shows it."""

from collections.abc import Callable
from dataclasses import dataclass

from amg.runs.folder import Tally


@dataclass(frozen=True, slots=True)
class RunState:
    """A look at a run under way. `resumed` was there before this driver began."""

    n_images: int
    resumed: Tally
    done: Tally
    elapsed_s: float
    n_workers: int
    n_starting: int
    busy_share: float
    n_shards_left: int


OnState = Callable[[RunState], object]
"""Told how a run goes."""
