"""Kill workers and drivers at random, on a store that fails, and look at what is committed.

    python -m benchmarks.soak --engine local --kills 1000
    python -m benchmarks.soak --engine ray --kills 1000

Inputs and OUT are on an S3 server on loopback, of whose requests some fail. One image in twenty is
bad. Each run that comes to its end must have the rows of an undisturbed one; then the next begins
in another folder. Prints a line to append to benchmarks/results.md; an error is a lost row.

Images that kill or hang their worker are left out: beside random kills, which image a worker died
of cannot be told. The lease of a killed driver is shortened, or the time would go into waiting.
"""

import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import boto3
import typer
from moto.server import ThreadedMotoServer

from amg.cli.options import EXIT_INCOMPLETE, EXIT_STORAGE, reports_errors
from amg.storage.stores import open_storage
from pipelines.corpus import lease
from tests.flaky_proxy import FlakyProxy
from tests.pipelines.helpers import contents, make_folder, make_run, running_workers
from tests.pipelines.stub import FULL, RAISE, SLEEP_VARIABLE, save_image

app = typer.Typer(help=__doc__)
_FAULTS = ("busy", "reset", "lost", "cut", "stall")
_DRIVERS_SHARE = 0.15
_BUCKET = "soak"
_LEASE_S = 15.0
# So many kills in so short a time hit some image more than once by chance.
_OPTIONS = ("engine.max_workers=2", "run.max_kills_per_image=50", "run.max_attempts=50")
_LIMIT = "run.max_image_pixels=10000"


@app.command()
def soak(
    engine: str = "local",
    kills: int = 1000,
    images: int = 400,
    failing: float = 0.05,
    image_s: float = 0.05,
    seed: int = 1,
) -> None:
    """Run until so many workers and drivers were killed, then once to the end."""
    rng = random.Random(seed)  # noqa: S311
    with (
        tempfile.TemporaryDirectory() as root,
        _serving() as direct,
        _flaky(direct, failing) as way,
    ):
        folder = _upload(Path(root), images)
        _drive(folder, _out("calm"), Path(root) / "state", direct, []).wait()
        expected = contents(_out("calm"))
        assert len(expected) == images
        with _workers_of(engine, way.address, image_s) as (workers, options):
            soaker = _Soaker(rng, Path(root) / "state", folder, way, [*options], workers, image_s)
            started = time.monotonic()
            while not (soaker.is_whole(expected) and soaker.n_killed >= kills):
                soaker.drive(kills)
        seconds = time.monotonic() - started
    typer.echo(
        f"{engine}: {soaker.killed['worker']} workers and {soaker.killed['driver']} drivers killed "
        f"in {seconds:.0f} s over {images} images, {len(soaker.statuses(expected))} kinds of rows; "
        f"{len(way.faults)} requests failed ({_counts(f for f, *_ in way.faults)}); drivers ended "
        f"{_counts(f'by code {code}' for code in soaker.codes)}; "
        f"{soaker.n_whole} whole runs: all rows there once, all equal"
    )


@app.command()
@reports_errors
def drive(
    inputs: str,
    out: str,
    state: Path,
    overrides: Annotated[list[str] | None, typer.Argument()] = None,
) -> None:
    """Be a driver, and write down how many workers are ready."""
    lease.LEASE_S = _LEASE_S
    run = make_run(inputs, out, _LIMIT, *(overrides or ()))
    report = run.execute(lambda now: state.write_text(str(now.n_workers)))
    raise typer.Exit(0 if report.is_complete else EXIT_INCOMPLETE)


class _Soaker:
    """Drivers of one folder after the other, and what was done to them."""

    def __init__(
        self,
        rng: random.Random,
        state: Path,
        folder: str,
        way: FlakyProxy,
        options: list[str],
        workers: Callable[[str], list[int]],
        image_s: float,
    ) -> None:
        self._rng, self._state, self._folder, self._way = rng, state, folder, way
        self._options, self._workers, self._image_s = options, workers, image_s
        self.killed: Counter[str] = Counter(worker=0, driver=0)
        self.codes: list[int] = []
        self.n_whole = 0
        self._is_ended = False

    @property
    def n_killed(self) -> int:
        """Workers and drivers."""
        return self.killed.total()

    @property
    def _at(self) -> str:
        return _out(f"out-{self.n_whole}")

    def drive(self, most: int) -> None:
        """Run a driver until it ends or is killed; kill no more than `most` in all."""
        self._state.write_text("0")
        environment = {SLEEP_VARIABLE: str(self._image_s)}
        driver = _drive(
            self._folder, self._at, self._state, self._way.address, self._options, **environment
        )
        while driver.poll() is None:
            if self.n_killed < most and self._state.read_text() not in ("", "0"):
                time.sleep(self._rng.uniform(0, 60 * self._image_s))
                self._kill_one(driver)
            time.sleep(0.05)
        if driver.returncode != -signal.SIGKILL:
            self.codes.append(driver.returncode)
            assert driver.returncode in (0, EXIT_INCOMPLETE, EXIT_STORAGE), driver.returncode
        self._is_ended = driver.returncode == 0
        if driver.returncode == EXIT_INCOMPLETE:  # as long as a killed one's lease is good
            time.sleep(_LEASE_S / 4)

    def _kill_one(self, driver: "subprocess.Popen[bytes]") -> None:
        workers = self._workers(self._at)
        if self._rng.random() < _DRIVERS_SHARE:
            driver.kill()
            driver.wait()
            self.killed["driver"] += 1
        elif workers:
            with suppress(ProcessLookupError):
                os.kill(self._rng.choice(workers), signal.SIGKILL)
                self.killed["worker"] += 1
                self._state.write_text("0")  # until the driver says that one is ready

    def is_whole(self, expected: list[Any]) -> bool:
        """Whether the run has ended; its rows are looked at, and the next begins elsewhere."""
        if not self._is_ended:
            return False
        assert contents(self._at) == expected, f"{self._at}: other rows than undisturbed"
        self.n_whole += 1
        return True

    @staticmethod
    def statuses(rows: list[Any]) -> set[str]:
        """What rows can be."""
        return {row[1] for row in rows}


def _drive(
    folder: str, out: str, state: Path, endpoint: str, options: list[str], **environment: str
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # noqa: S603 - this module
        [sys.executable, "-m", "benchmarks.soak", "drive", folder, out, str(state), *options],
        env={**os.environ, **environment, "AMG_TEST_DRIVER": out, "AWS_ENDPOINT_URL": endpoint},
    )


def _out(name: str) -> str:
    return f"s3://{_BUCKET}/{name}"


def _counts(values: Any) -> str:
    counted = sorted(Counter(values).items())
    return ", ".join(f"{n} {value}" for value, n in counted) or "none"


@contextmanager
def _serving() -> Iterator[str]:
    """An S3 server with a bucket; its address."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    place = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": address}
    with patch.dict(os.environ, {**keys, **place, "NO_PROXY": "127.0.0.1"}):
        boto3.client("s3").create_bucket(Bucket=_BUCKET)
        yield address
    server.stop()


@contextmanager
def _flaky(address: str, failing: float) -> Iterator[FlakyProxy]:
    """A way to the server on which this share of the requests fails."""
    rng = random.Random(0)  # noqa: S311

    def fault(_method: str, _path: str) -> str | None:
        return rng.choice(_FAULTS) if rng.random() < failing else None

    proxy = FlakyProxy(address, fault)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    yield proxy
    proxy.shutdown()


def _upload(root: Path, n_images: int) -> str:
    """Put photos into the bucket, one in twenty bad; a list of them, and of one that is gone."""
    folder = make_folder(root / "in", n_images - 1)
    for kind, i in enumerate(range(7, n_images - 1, 20)):
        _spoil(folder / f"{i:03d}.png", i, kind)
    storage = open_storage(_out("in"))
    names = sorted(path.name for path in folder.iterdir())
    for name in names:
        storage.write(name, (folder / name).read_bytes())
    storage.write("list.txt", "\n".join([*names, "gone.png"]).encode())
    return storage.url("list.txt")


def _spoil(path: Path, seed: int, kind: int) -> None:
    """Make an image bad, in one of the ways."""
    data = path.read_bytes()
    ways: tuple[Callable[[], object], ...] = (
        lambda: path.write_bytes(b""),
        lambda: path.write_bytes(data[: len(data) // 2]),
        lambda: path.write_bytes(b"no image at all"),
        lambda: save_image(path, seed, size_hw=(200, 200)),  # over _LIMIT
        lambda: save_image(path, seed, RAISE),
        lambda: save_image(path, seed, FULL),
    )
    ways[kind % len(ways)]()


@contextmanager
def _workers_of(
    engine: str, endpoint: str, image_s: float
) -> Iterator[tuple[Callable[[str], list[int]], list[str]]]:
    """Who the workers of an OUT are (process ids), and the options of drivers with such workers."""
    if engine == "local":
        yield running_workers, [*_OPTIONS]
        return
    from ray.cluster_utils import Cluster  # noqa: PLC0415 - only for Ray

    node = {"num_cpus": 2, "include_dashboard": False, "dashboard_agent_listen_port": 0}
    with patch.dict(os.environ, {"AWS_ENDPOINT_URL": endpoint, SLEEP_VARIABLE: str(image_s)}):
        cluster = Cluster(initialize_head=True, head_node_args=node)
    assert cluster.head_node is not None
    session = os.fsencode(Path(cluster.head_node.get_session_dir_path()).name)
    options = ["engine.name=ray", f"engine.address={cluster.address}"]
    try:
        yield lambda _: _actors(session), [*_OPTIONS, *options]
    finally:
        cluster.shutdown()


def _actors(session: bytes) -> list[int]:
    """Process ids of the workers of a Ray session, whose processes are children of its raylet."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if b"ray::_Actor" in (process / "cmdline").read_bytes():
                parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
                if session in Path(f"/proc/{parent}/cmdline").read_bytes():
                    found.append(int(process.name))
    return found


if __name__ == "__main__":
    app()
