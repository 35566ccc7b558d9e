"""Where, when, with what and of what a measurement is made. Needs Linux."""

import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

_OURS = ("torch", "torchvision", "numpy", "numba")
_DEFAULTS = ("generator.points_per_side=32",)  # the original's, whatever suits a model
_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Machine:
    """`cores` this process may use, and `threads` that torch does; `gpu` is None on a CPU."""

    cpu: str
    cores: int
    threads: int
    memory_gb: float
    gpu: str | None

    def __str__(self) -> str:
        on_gpu = f"{self.gpu}, " if self.gpu else ""
        return f"{on_gpu}{self.cpu}, {self.cores} cores, {self.threads} threads"


@dataclass(frozen=True, slots=True)
class Setting:
    """Where, when and of what a measurement was made.

    `date` in UTC, ISO 8601; `load` of the machine before it; `weights_sha256` is None for random
    weights; `imgsz` is the side of the model's input in pixels; `overrides` as given to `--set`.
    """

    date: str
    commit: str
    machine: Machine
    load: float
    versions: Mapping[str, str]
    model: str
    weights_sha256: str | None
    imgsz: int
    device: str
    overrides: tuple[str, ...]


def describe(
    model: str,
    weights_sha256: str | None,
    imgsz: int,
    device: str,
    overrides: tuple[str, ...],
    load: float,
    packages: Iterable[str] = (),
) -> Setting:
    """A measurement that is about to be made; `packages` beside ours that it depends on.

    `load` is asked for before models are built, which is load too.
    """
    return Setting(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=commit(),
        machine=this_machine(device),
        load=load,
        versions=versions(packages),
        model=model,
        weights_sha256=weights_sha256,
        imgsz=imgsz,
        device=device,
        overrides=overrides,
    )


def complete(overrides: Sequence[str] | None) -> tuple[str, ...]:
    """What `--set` was given, after what holds for all measurements; the last of a key counts."""
    chosen = {override.partition("=")[0]: override for override in (*_DEFAULTS, *(overrides or ()))}
    return tuple(chosen.values())


def load_average() -> float:
    """Of the last minute: processes that ran or waited to run."""
    return round(os.getloadavg()[0], 2)


def this_machine(device: str) -> Machine:
    """The machine that this runs on, and the GPU if `device` is one."""
    cpus = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Machine(
        cpu=cpus[0] if cpus else platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        threads=torch.get_num_threads(),
        memory_gb=round(pages / 1e9, 1),
        gpu=torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else None,
    )


def versions(packages: Iterable[str] = ()) -> dict[str, str]:
    """Of Python, of what our speed depends on, and of these packages, if they are there."""
    found = {"python": platform.python_version()}
    for package in (*_OURS, *packages):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit of this code, marked where `amg` has changes since; "unknown" outside git."""
    try:
        head = _git("rev-parse", "--short", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", "amg")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}-changed" if changed else head


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_ROOT), *arguments]
    output = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    return output.stdout.strip()
