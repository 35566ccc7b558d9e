"""How much memory is free: of a device, of this machine, of the container that we are in.

Sources: `Documentation/admin-guide/cgroup-v2.rst` and `cgroup-v1/memory.rst` of Linux; `proc(5)`.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

import torch

_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
_V2_LIMITS = ("memory.max", "memory.high")


def free_bytes(device: torch.device) -> int:
    """Memory that nobody needs: of a CUDA device, or of this machine and its containers.

    What files are kept in for speed alone counts as free.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(_machine_bytes(), *_container_bytes())


def _machine_bytes() -> int:
    """What Linux can give without swapping; elsewhere all there is."""
    with suppress(OSError, ValueError, IndexError):
        for line in (_PROC / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _container_bytes() -> Iterator[int]:
    """What each limit on this process leaves: of its control group, and of those around it."""
    for line in _lines(_PROC / "self" / "cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            for folder in _with_parents(_CGROUPS, path):
                limits = [_number(folder / name) for name in _V2_LIMITS]
                used = _number(folder / "memory.current")
                yield from _left(limits, used, folder, "inactive_file")
        elif "memory" in controllers.split(","):
            for folder in _with_parents(_CGROUPS / "memory", path):
                limits = [_number(folder / "memory.limit_in_bytes")]
                used = _number(folder / "memory.usage_in_bytes")
                yield from _left(limits, used, folder, "total_inactive_file")
    yield 2**62  # where nothing limits us


def _left(limits: list[int | None], used: int | None, folder: Path, of_files: str) -> Iterator[int]:
    known = [limit for limit in limits if limit is not None]
    if known:
        counted = (line.split() for line in _lines(folder / "memory.stat"))
        cached = sum(int(words[1]) for words in counted if words[:1] == [of_files])
        yield max(min(known) - max((used or 0) - cached, 0), 0)


def _with_parents(root: Path, path: str) -> Iterator[Path]:
    """A group's folder and those above it; in a container the path may be the machine's own."""
    inside = PurePosixPath(path.lstrip("/"))
    yield from (root / folder for folder in (inside, *inside.parents))


def _number(file: Path) -> int | None:
    """The number in a file; None where there is no file, or no limit."""
    text = "".join(_lines(file)).strip()
    return int(text) if text.isdigit() else None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
