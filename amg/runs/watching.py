"""What those are told who watch while something long is done to a run."""

from collections.abc import Callable

OnImages = Callable[[int, int], object]
"""Told how many images are done, and of how many."""

OnItems = Callable[[int, int, str], object]
"""Told how many are done, of how many, and of what."""
