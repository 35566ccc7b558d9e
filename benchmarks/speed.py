"""Time our generator beside the original's: same weights, same photos, array to COCO RLE.

    python -m benchmarks.speed [PHOTO...] [--model nano] [--imgsz 1024] [--set generator.key=value]

Each has a process of its own that holds its model; photos are given to one, then to the other.
Without photos: those in scikit-image's wheel. Peak memory is the whole process's, model, libraries
and photo included, and needs Linux.
"""

import platform
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import torch
import typer

from amg.config import load_config
from amg.evaluate.parity import compare_annotations
from amg.generate.generator import MaskGenerator
from amg.io.images import decode_image
from amg.io.reading import read_bytes
from amg.models.load import load_model
from benchmarks.original import original_generator
from pipelines.demo import write_photos

Annotations = list[dict[str, Any]]

_generate: Callable[[np.ndarray], Annotations]


@dataclass(frozen=True, slots=True)
class Job:
    """What both generators are made from."""

    model: str
    checkpoint: Path | None
    imgsz: int | None
    overrides: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One photo by one generator."""

    size_hw: tuple[int, int]
    seconds: float
    peak_mb: float
    annotations: Annotations


def main(
    photos: Annotated[list[Path] | None, typer.Argument()] = None,
    model: Annotated[str, typer.Option()] = "nano",
    checkpoint: Annotated[Path | None, typer.Option()] = None,
    imgsz: Annotated[int | None, typer.Option(help="Side of the model's input, in pixels.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="generator.key=value")] = None,
) -> None:
    """Print a line for each photo, as a Markdown table."""
    overrides = ("generator.points_per_side=32", *(set_ or ()))
    job = Job(model, checkpoint, imgsz, overrides)
    typer.echo(
        f"{model}, input {imgsz or 'its own'}, {' '.join(overrides)}; {platform.machine()}, "
        f"{torch.get_num_threads()} threads, Python {platform.python_version()}, "
        f"torch {torch.__version__}\n"
    )
    typer.echo(
        "| photo | MP | ours, s | original, s | times faster | ours, MB | original, MB | masks |"
    )
    typer.echo("|---|---|---|---|---|---|---|---|")
    spawn = get_context("spawn")
    pools = [ProcessPoolExecutor(1, spawn, _hold, (job, name)) for name in ("ours", "original")]
    ratios: list[float] = []
    with TemporaryDirectory() as folder:
        if not photos:
            write_photos(Path(folder))
            photos = sorted(Path(folder).glob("*.png"))
        for photo in photos:
            ours, original = (pool.submit(_measure, photo).result() for pool in pools)
            ratios.append(original.seconds / ours.seconds)
            report = compare_annotations(original.annotations, ours.annotations)
            typer.echo(
                f"| {photo.name} | {ours.size_hw[0] * ours.size_hw[1] / 1e6:.2f} "
                f"| {ours.seconds:.2f} | {original.seconds:.2f} | {ratios[-1]:.1f} "
                f"| {ours.peak_mb:.0f} | {original.peak_mb:.0f} "
                f"| {report.n_ours}, {report.n_identical} identical, "
                f"{'exact' if report.exact else 'NOT EXACT'} |"
            )
    typer.echo(f"\nGeometric mean: {np.exp(np.mean(np.log(ratios))):.1f} times faster.")
    for pool in pools:
        pool.shutdown()


def _hold(job: Job, name: str) -> None:
    """Build this process's generator, and let it compile what it compiles."""
    global _generate  # noqa: PLW0603 - a pool's process has no other place
    config = load_config(overrides=job.overrides).generator
    generator = MaskGenerator(
        load_model(job.model, checkpoint=job.checkpoint, device="cpu", imgsz=job.imgsz), config
    )
    if name == "ours":
        _generate = lambda image: generator.generate(image).to_annotations()  # noqa: E731
    else:
        _generate = original_generator(generator.model, generator.config).generate
    few = {"points_per_side": 2, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
    warm = MaskGenerator(generator.model, generator.config.model_copy(update=few))
    warm.generate(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))


def _measure(photo: Path) -> Measurement:
    image = decode_image(read_bytes(photo)).rgb
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    started = time.perf_counter()
    annotations = _generate(image)
    seconds = time.perf_counter() - started
    status = Path("/proc/self/status").read_text()
    peak_kb = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return Measurement(image.shape[:2], seconds, int(peak_kb) / 1e3, annotations)


if __name__ == "__main__":
    typer.run(main)
