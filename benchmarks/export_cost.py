"""What exports cost: time and memory of each format, on a run of blobs that needs no model.

python -m benchmarks.export_cost --images 10000 --masks 50 prints a table; each format is written in
a process of its own, so that its peak is its own.
"""

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.synthetic_run import blob_rows, write_run

_WAYS: dict[str, dict[str, str]] = {
    "coco": {},
    "sa1b": {},
    "label-map": {},
    "panoptic": {},
    "cvat": {},
    "yolo": {},
    "coco, polygons": {"segmentation": "polygons"},
    "label-studio, rle": {"segmentation": "rle"},
    "label-studio": {},
    "png": {},
}


def main(
    images: Annotated[int, typer.Option(help="Images of the run.")] = 10_000,
    masks: Annotated[int, typer.Option(help="Masks of each.")] = 50,
    way: Annotated[list[str] | None, typer.Option(help="Only these; repeatable.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Where to work.")] = None,
) -> None:
    """Make a run, export it in all ways, and print a line for each."""
    work = Path(tempfile.mkdtemp(dir=folder))
    console = Console(soft_wrap=True, highlight=False)
    try:
        write_run(work / "run", blob_rows(images, masks), images, images_per_shard=500)
        console.print(
            "| format | CPU s | images a CPU s | peak RSS | on disk |\n|---|---|---|---|---|"
        )
        for name in way or _WAYS:
            console.print(_line(name, work, images), markup=False)
    finally:
        shutil.rmtree(work)


def _line(name: str, work: Path, images: int) -> str:
    arguments = json.dumps([str(work / "run"), name, str(work / "out")])
    command = [sys.executable, "-m", "benchmarks.export_cost", "--one", arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    seconds, peak_mb = json.loads(done.stdout)
    size_mb = _disk_mb(work / "out")
    shutil.rmtree(work / "out")
    return (
        f"| {name} | {seconds:.0f} | {images / seconds:.0f} | {peak_mb:.0f} MB | {size_mb:.0f} MB |"
    )


def _disk_mb(folder: Path) -> float:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*")) / 1e6


def _one(arguments: str) -> None:
    """Export once, and print seconds and the peak in MB.

    Of the CPU, since the machine may have other work; all of it is done in one thread.
    """
    from amg.exports.formats import export  # noqa: PLC0415 - it counts as part of the cost

    run, name, out = json.loads(arguments)
    start = time.process_time()
    export(run, name.partition(",")[0], out, **_WAYS[name])
    seconds = time.process_time() - start
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([seconds, peak_mb]))  # noqa: T201


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        _one(sys.argv[2])
    else:
        typer.run(main)
