"""What the originals are given of our configuration."""

from collections.abc import Iterable
from typing import Any

from amg.config import GeneratorConfig


def parameters_of(config: GeneratorConfig, names: Iterable[str]) -> dict[str, Any]:
    """The named values; batches of points that are ours to choose are theirs to choose."""
    values = {name: getattr(config, name) for name in names}
    if values.get("points_per_batch", 0) is None:
        del values["points_per_batch"]
    return values
