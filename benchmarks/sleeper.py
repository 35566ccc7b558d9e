"""A generator that takes time and finds nothing: what is left over is the run's own cost.

In a module of its own, since workers import it by name.
"""

import os
import time
from collections.abc import Callable
from typing import Any

from amg.config import Config
from amg.records import ImageResult

SLEEP_S = 0.05


class SleepingGenerator:
    """Takes 50 ms an image (or AMG_SLEEP_S seconds), and finds nothing."""

    def __init__(self, heartbeat: Callable[[], None]) -> None:
        self._heartbeat = heartbeat
        self._sleep_s = float(os.environ.get("AMG_SLEEP_S", SLEEP_S))

    def generate_batch(self, images: list[Any]) -> list[ImageResult]:
        """Sleep for each image."""
        for _ in images:
            self._heartbeat()
            time.sleep(self._sleep_s)
        return [ImageResult(image.shape[:2], ()) for image in images]

    def with_smaller_batches(self) -> None:
        """There are none."""


def make_sleeper(_config: Config, heartbeat: Callable[[], None]) -> SleepingGenerator:
    """What workers build in place of a model."""
    return SleepingGenerator(heartbeat)
