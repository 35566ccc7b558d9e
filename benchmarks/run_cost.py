"""What a run costs on top of the model: time, memory, planning.

    python -m benchmarks.run_cost overhead   # a stub that sleeps 50 ms, both engines
    python -m benchmarks.run_cost overlap    # a device that sleeps, photos resized ahead or in turn
    python -m benchmarks.run_cost memory     # driver and worker over 20,000 images
    python -m benchmarks.run_cost plan       # a million inputs

Each prints lines to append to benchmarks/results.md, with the machine they were measured on.
"""

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import skimage.data
import typer
from PIL import Image

from amg.config import Config, load_config
from benchmarks.sleeper import (
    SleepingGenerator,
    make_device,
    make_device_in_turn,
    make_sleeper,
)
from pipelines.corpus.run import Run

app = typer.Typer(help=__doc__)


def make_images(folder: Path, n: int) -> Path:
    """Small photos' worth of noise, each another name of one file."""
    pixels = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    return _save_often(Image.fromarray(pixels), folder, n)


@app.command()
def overhead(images: int = 2000, workers: list[int] = [1, 2, 4]) -> None:  # noqa: B006
    """Compare runs with the bare loop over the stub."""
    _say_machine()
    with tempfile.TemporaryDirectory() as root:
        folder = make_images(Path(root) / "in", images)
        generator = SleepingGenerator(lambda: None)
        started = time.perf_counter()
        for _ in range(images):
            generator.generate_batch([np.zeros((1, 1, 3), np.uint8)])
        bare_s = (time.perf_counter() - started) / images
        typer.echo(f"bare loop: {images} images, {1000 * bare_s:.2f} ms each")
        for engine, n in [("local", 1), *(("ray", n) for n in workers)]:
            out = Path(root) / f"{engine}-{n}"
            options = [f"engine.name={engine}", "engine.address=local", "model.device=cpu"]
            options += [f"engine.max_workers={n}", "engine.cpus_per_worker=0.1"]
            options += ["run.images_per_shard=20"]
            run = Run([folder], out, load_config(None, options), make_generator=make_sleeper)
            assert run.execute().is_complete
            worker_s = _worker_seconds(out)
            typer.echo(
                f"{engine}, {n} workers: {1000 * worker_s / images:.2f} ms of a worker each, "
                f"{worker_s / images / bare_s - 1:+.1%}"
            )


@app.command()
def overlap(images: int = 200, sleep_s: float = 0.05, decode_threads: int = 2) -> None:
    """Compare a run whose photos, of SA-1B's size, are resized ahead with one that does it between.

    Where it would wait for a device the worker sleeps: this is of the CPU's side alone.
    """
    _say_machine()
    os.environ["AMG_SLEEP_S"] = str(sleep_s)
    with tempfile.TemporaryDirectory() as root:
        folder = _make_photos(Path(root) / "in", images)
        options = ["model.device=cpu", "run.images_per_shard=1000"]
        options += [f"run.decode_threads={decode_threads}"]
        for name, make in (("in turn", make_device_in_turn), ("ahead", make_device)) * 2:
            run = Run(
                [folder],
                Path(root) / "out",
                load_config(None, options),
                make_generator=make,
                overwrite=True,
            )
            report = run.execute()
            assert report.is_complete
            rate = images / _worker_seconds(Path(root) / "out")
            typer.echo(f"resized {name}: {rate:.1f} of at most {1 / sleep_s:.1f} images/s")


def _make_photos(folder: Path, n: int) -> Path:
    """A photo of 1500 x 2250 pixels under many names."""
    photo = Image.fromarray(skimage.data.astronaut())
    return _save_often(photo.resize((2250, 1500), Image.Resampling.BICUBIC), folder, n, quality=90)


def _save_often(image: Image.Image, folder: Path, n: int, **options: Any) -> Path:
    folder.mkdir(parents=True)
    image.save(folder / "00000.jpg", **options)
    for i in range(1, n):
        os.link(folder / "00000.jpg", folder / f"{i:05d}.jpg")
    return folder


def _worker_seconds(out: Path) -> float:
    """From each worker's start to the run's end, summed: idle time at the end counts."""
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    end = max(event["time"] for event in events if event["event"] == "committed")
    return sum(end - event["time"] for event in events if event["event"] == "worker_ready")


@app.command()
def memory(images: int = 20_000) -> None:
    """Print the resident memory of driver and worker along a run."""
    _say_machine()
    os.environ["AMG_SLEEP_S"] = "0"
    with tempfile.TemporaryDirectory() as root:
        folder = make_images(Path(root) / "in", images)
        config = load_config(None, ["model.device=cpu", "run.images_per_shard=100"])
        samples: list[tuple[int, float, float]] = []

        def watch(state: Any) -> None:
            workers = _children(os.getpid())
            if state.done.images and workers:
                sample = (state.done.images, _rss_mb(os.getpid()), _rss_mb(workers[0]))
                samples.append(sample)

        run = Run([folder], Path(root) / "out", config, make_generator=make_sleeper)
        report = run.execute(watch)
        assert report.is_complete
        typer.echo(f"{images} images at {report.session_images / report.session_s:.0f} images/s")
        for share in (0.1, 0.25, 0.5, 0.75, 1.0):
            done, driver, worker = min(samples, key=lambda s: abs(s[0] - share * images))
            typer.echo(f"after {done} images: driver {driver:.0f} MB, worker {worker:.0f} MB")


@app.command()
def plan(inputs: int = 1_000_000) -> None:
    """Plan a million inputs of a Parquet table, and of a folder, in processes of their own."""
    _say_machine()
    with tempfile.TemporaryDirectory() as root:
        table = Path(root) / "inputs.parquet"
        uris = pa.array([f"s3://bucket/images/{i // 1000:05d}/{i:09d}.jpg" for i in range(inputs)])
        pq.write_table(pa.table({"uri": uris}), table)
        folder = Path(root) / "photos"
        for i in range(0, inputs, 1000):
            (folder / f"{i // 1000:05d}").mkdir(parents=True)
            for j in range(i, min(i + 1000, inputs)):
                (folder / f"{i // 1000:05d}" / f"{j:09d}.jpg").touch()
        for name, source in (("uri column", table), ("folder", folder)):
            code = "import sys; from benchmarks.run_cost import plan_once; plan_once(*sys.argv[1:])"
            arguments = [sys.executable, "-c", code, str(source), f"{root}/out-{name}"]
            said = subprocess.run(  # noqa: S603 - our own module
                arguments, check=True, capture_output=True, text=True
            ).stdout
            typer.echo(f"{name}: {said.strip()}")


def plan_once(source: str, out: str) -> None:
    """Plan, and print what it took."""
    from amg.storage.stores import open_storage  # noqa: PLC0415 - counted in the memory it takes
    from pipelines.corpus.plan import Job, prepare  # noqa: PLC0415

    started = time.perf_counter()
    made, _ = prepare(Job([source], Config()), open_storage(out))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size_mb = Path(out, "inputs.parquet").stat().st_size / 1e6
    seconds = time.perf_counter() - started
    typer.echo(
        f"{made.n_images} in {seconds:.1f} s, {peak_mb:.0f} MB at most, plan of {size_mb:.1f} MB"
    )


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{threading.get_native_id()}/children")
    return [int(child) for child in path.read_text().split()]


def _rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _say_machine() -> None:
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    typer.echo(f"{machine}, load {os.getloadavg()[0]:.1f} before")


if __name__ == "__main__":
    app()
