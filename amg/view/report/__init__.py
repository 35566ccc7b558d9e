"""One static folder that shows what a run found and where it failed: `amg report`."""

from collections.abc import Callable

DEFAULT_IMAGES = 300
"""Most images in the gallery."""

Watch = Callable[[int, int, str], object]
"""Hears how many are done, of how many, and of what."""
