"""One source of chance: cheap scalar draws beside a NumPy generator for arrays."""

import math
import random
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Dice:
    """Scalar draws at 0.1 us each; `arrays` is the generator for draws of whole arrays."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.arrays = rng
        self._scalar = random.Random(int(rng.integers(1 << 62)))  # noqa: S311

    def uniform(self, low: float, high: float) -> float:
        """A float in [low, high)."""
        return low + (high - low) * self._scalar.random()

    def log_uniform(self, low: float, high: float) -> float:
        """A float in [low, high), uniform in its logarithm."""
        return low * math.exp(math.log(high / low) * self._scalar.random())

    def normal(self, mean: float = 0.0, std: float = 1.0) -> float:
        """A normal deviate."""
        return self._scalar.gauss(mean, std)

    def integer(self, low: int, high: int) -> int:
        """An integer in [low, high], both ends included."""
        return low + int((high - low + 1) * self._scalar.random())

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self._scalar.random() < probability

    def sign(self) -> float:
        """-1.0 or 1.0."""
        return 1.0 if self._scalar.random() < 0.5 else -1.0

    def pick(self, items: Sequence[T]) -> T:
        """One item, all equally likely."""
        return items[int(len(items) * self._scalar.random())]

    def weighted(self, items: Sequence[T], weights: Sequence[float]) -> T:
        """One item, with probability proportional to its weight."""
        return self._scalar.choices(items, weights)[0]
