"""One generator in a process of its own: its memory and its libraries are in no other's.

This module is imported by all of them: what only one needs is imported where it is used.
"""

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amg.config import GeneratorConfig, load_config
from amg.inputs.images import decode_image
from amg.inputs.reading import read_bytes
from amg.models.families.sam import SAMModel
from amg.models.zoo.load import load_model
from amg.ops.processes import die_with_parent
from benchmarks.memory import forget_peak, peak_mb
from benchmarks.peers import PEERS, Annotations, Generate
from benchmarks.record import OURS

# The first masks of a process wait for compilers and allocators: they are made beforehand.
_FEW = {
    "points_per_side": 2,
    "point_grids": None,
    "pred_iou_thresh": 0.0,
    "stability_score_thresh": 0.0,
}


@dataclass(frozen=True, slots=True)
class Job:
    """What all generators are made from."""

    model: str
    checkpoint: Path | None
    imgsz: int | None
    device: str
    overrides: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One photo by one generator."""

    size_hw: tuple[int, int]
    seconds: float
    peak_mb: float
    annotations: Annotations


class Contender:
    """A generator that waits in its process for photos."""

    def __init__(self, name: str, job: Job) -> None:
        """Start the process, and let it build its generator: ours, or that of a peer."""
        self._pool = ProcessPoolExecutor(1, get_context("spawn"))
        self.imgsz: int = self._call(_hold, name, job)

    def measure(self, photo: Path) -> Measurement:
        """Time one photo, from pixels to COCO RLE, and take the peak of memory meanwhile."""
        return self._call(_measure, photo)

    def profile(self, photo: Path) -> dict[str, float]:
        """Seconds in each of our stages."""
        return self._call(_profile, photo)

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown()

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._pool.submit(function, *arguments).result()


@dataclass(frozen=True, slots=True)
class _Held:
    """What a contender's process has. A peer has weights of its own: only ours keeps `model`."""

    model: SAMModel | None
    generate: Generate
    device: torch.device


_held: _Held


def _hold(name: str, job: Job) -> int:
    """Build this process's generator; gives the side of the model's input, in pixels."""
    global _held  # noqa: PLW0603 - a pool's process has no other place
    die_with_parent()
    model = load_model(job.model, checkpoint=job.checkpoint, device=job.device, imgsz=job.imgsz)
    config = load_config(overrides=job.overrides).generator.for_model(model.info.generator_defaults)
    make = _make_ours if name == OURS else PEERS[name].make
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    make(model, config.model_copy(update=_FEW))(noise)
    kept = model if name == OURS else None
    _held = _Held(kept, make(model, config), model.device)
    return model.imgsz


def _make_ours(model: SAMModel, config: GeneratorConfig) -> Generate:
    from amg.generate.generator import MaskGenerator  # noqa: PLC0415

    generator = MaskGenerator(model, config)
    return lambda image: generator.generate(image).to_annotations()


def _read(photo: Path) -> np.ndarray:
    return decode_image(read_bytes(photo)).rgb


def _measure(photo: Path) -> Measurement:
    image = _read(photo)
    forget_peak(_held.device)
    started = time.perf_counter()
    annotations = _held.generate(image)
    seconds = time.perf_counter() - started
    return Measurement(image.shape[:2], seconds, peak_mb(_held.device), annotations)


def _profile(photo: Path) -> dict[str, float]:
    from benchmarks.stages import profile_stages  # noqa: PLC0415

    assert _held.model is not None
    image = _read(photo)
    return profile_stages(_held.model, lambda: _held.generate(image))
