"""Others' generators that can take our models' weights: one entry each, and all that is said of it.

To add one, write a module that makes its generator from a model of ours, as `benchmarks.original`
does, and give it an entry in `PEERS`. Its libraries are imported by `make` alone, so that they are
in the memory of no other generator's process.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from amg.config import GeneratorConfig
from amg.errors import ConfigError
from amg.models.families.sam import SAMModel
from amg.models.families.sam2 import SAM2Model
from amg.models.zoo.registry import get_spec

Annotations = list[dict[str, Any]]
"""An image's masks: at least `segmentation`, as COCO RLE."""
Generate = Callable[[np.ndarray], Annotations]
"""From an image (H, W, 3) uint8 RGB to its masks."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Someone else's generator.

    `package`: what is installed for it. `architectures`: those of the models (`ModelSpec`) whose
    weights it takes. `is_reference`: whether ours must give its masks, for these models.
    """

    name: str
    package: str
    architectures: Collection[str]
    is_reference: bool
    make: Callable[[Any, GeneratorConfig], Generate]


def _make_original(model: SAMModel | SAM2Model, config: GeneratorConfig) -> Generate:
    from benchmarks.original import original_generator  # noqa: PLC0415

    return original_generator(model, config).generate


def _make_pipeline(model: SAMModel, config: GeneratorConfig) -> Generate:
    from benchmarks.transformers_pipeline import pipeline_generator  # noqa: PLC0415

    return pipeline_generator(model, config)


_SAM = ("sam_vit", "mobile_sam", "nano")

PEERS = {
    peer.name: peer
    for peer in (
        Peer("original", "segment-anything", _SAM, is_reference=True, make=_make_original),
        Peer("sam2", "sam2", ("sam2",), is_reference=True, make=_make_original),
        Peer("transformers", "transformers", _SAM, is_reference=False, make=_make_pipeline),
    )
}


def choose_peers(model: str, names: Sequence[str] | None = None) -> list[Peer]:
    """The peers of a registered model: all, or those of these names.

    Raises ConfigError for a name that is none of them, or a peer that is not installed.
    """
    architecture = get_spec(model).architecture
    fitting = {name: p for name, p in PEERS.items() if architecture in p.architectures}
    for name in names or ():
        if name not in fitting:
            raise ConfigError(f"peer: {name!r} is none of {model}'s: {', '.join(fitting)}")
    chosen = list(fitting.values()) if names is None else [fitting[name] for name in names]
    for peer in chosen:
        try:
            version(peer.package)
        except PackageNotFoundError:
            message = f"peer: {peer.name} needs {peer.package}: pip install '.[bench]'"
            raise ConfigError(message) from None
    return chosen
