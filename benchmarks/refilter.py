"""How fast stored masks are filtered again.

    python -m benchmarks.refilter --images 10000

Makes a run of plain images with a hundred masks each, and refilters it in several ways.
"""

import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image

from amg.config import load_config
from amg.runs.results import open_run
from benchmarks.ellipses import SIZE_HW, make_hundred_ellipses
from pipelines.corpus.run import Run
from pipelines.refilter import refilter_run

WAYS: dict[str, dict[str, Any]] = {
    "predicted IoU": {"pred_iou_thresh": 0.6},
    "areas": {"min_area": 100, "max_area_fraction": 0.1},
    "parents": {"find_parents": True},
    "mask NMS": {"mask_nms_thresh": 0.5},
    "all of it": {
        "pred_iou_thresh": 0.6,
        "mask_nms_thresh": 0.5,
        "min_area": 100,
        "find_parents": True,
    },
}


def make_source(root: Path, n_images: int) -> Path:
    """A finished run of `n_images`, each another name of one file."""
    folder = root / "in"
    folder.mkdir()
    Image.fromarray(np.zeros((*SIZE_HW, 3), np.uint8)).save(folder / "00000.jpg")
    for i in range(1, n_images):
        os.link(folder / "00000.jpg", folder / f"{i:05d}.jpg")
    config = load_config(None, ["model.device=cpu", "generator.pred_iou_thresh=0.5"])
    Run([folder], root / "run", config, make_generator=make_hundred_ellipses).execute()
    return root / "run"


def main(
    images: Annotated[int, typer.Option(min=1)] = 10_000,
    workers: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Print seconds, of the clock and of all processors, from the start to the last commit."""
    with tempfile.TemporaryDirectory() as root:
        source = make_source(Path(root), images)
        n_masks = open_run(source).tally.masks
        size = sum(commit.n_bytes for commit in open_run(source).commits.values())
        typer.echo(f"{images} images, {n_masks} masks, {size / 1e6:.0f} MB; {workers} workers")
        for name, changes in WAYS.items():
            started, busy = time.perf_counter(), _processor_s()
            report = refilter_run(
                source, Path(root) / name.replace(" ", "-"), changes, workers=workers
            )
            seconds = time.perf_counter() - started
            typer.echo(
                f"{name}: {seconds:.1f} s, {n_masks / seconds:,.0f} masks/s, "
                f"{_processor_s() - busy:.1f} s of processors, {report.tally.masks} masks left"
            )


def _processor_s() -> float:
    """What this process and those that it has waited for have computed so far."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


if __name__ == "__main__":
    typer.run(main)
