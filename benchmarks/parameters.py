"""What the originals are given of our configuration."""

from collections.abc import Callable
from inspect import signature
from typing import Any

from amg.config import GeneratorConfig


def parameters_of(config: GeneratorConfig, generator: Callable[..., Any]) -> dict[str, Any]:
    """Our values for the parameters that a generator's constructor has under our names.

    Batches of points that are ours to choose are its own to choose.
    """
    names = signature(generator).parameters.keys() & GeneratorConfig.model_fields.keys()
    values = {name: getattr(config, name) for name in sorted(names)}
    if values["points_per_batch"] is None:
        del values["points_per_batch"]
    return values
