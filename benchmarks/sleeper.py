"""Generators that take time and find nothing: what is left over is the run's own cost.

In a module of its own, since workers import it by name.
"""

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from amg.config import Config
from amg.records import ImageResult

SLEEP_S = 0.05


class SleepingGenerator:
    """Takes 50 ms an image (or AMG_SLEEP_S seconds), and finds nothing."""

    def __init__(self, heartbeat: Callable[[], None]) -> None:
        self._heartbeat = heartbeat
        self._sleep_s = float(os.environ.get("AMG_SLEEP_S", SLEEP_S))

    def prepare(self, image: np.ndarray) -> Any:
        """Nothing is to be prepared."""
        return image

    def generate_batch(self, images: list[Any]) -> list[ImageResult]:
        """Sleep for each image."""
        for _ in images:
            self._heartbeat()
            time.sleep(self._sleep_s)
        return [ImageResult((1, 1), ()) for _ in images]

    def with_smaller_batches(self) -> None:
        """There are none."""


class SleepingDevice(SleepingGenerator):
    """Sleeps as the CPU does while a GPU works, with images that are fitted as SAM's, at 1024."""

    def __init__(self, heartbeat: Callable[[], None]) -> None:
        from amg.models.zoo.load import load_model  # noqa: PLC0415 - the other stub needs no torch

        super().__init__(heartbeat)
        self._model = load_model("nano", device="cpu", imgsz=1024)

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """Resize ahead, in a reading thread."""
        return self._model.fit(image).pixels


class SleepingDeviceInTurn(SleepingDevice):
    """The same, with images resized between the device's work."""

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """Leave it for later."""
        return image

    def generate_batch(self, images: list[Any]) -> list[ImageResult]:
        """Resize all, and sleep for each image."""
        return super().generate_batch([self._model.fit(image) for image in images])


def make_sleeper(_config: Config, heartbeat: Callable[[], None]) -> SleepingGenerator:
    """What workers build in place of a model."""
    return SleepingGenerator(heartbeat)


def make_device(_config: Config, heartbeat: Callable[[], None]) -> SleepingGenerator:
    """One that finds its images prepared."""
    return SleepingDevice(heartbeat)


def make_device_in_turn(_config: Config, heartbeat: Callable[[], None]) -> SleepingGenerator:
    """One that has to prepare them itself."""
    return SleepingDeviceInTurn(heartbeat)
