"""Processes of this machine: sharing work that holds Python's lock, and ending with the parent."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

_MOST_BY_DEFAULT = 8  # each has memory of its own
_TASKS_TO_PAY = 4  # a process takes about a second to start
_PR_SET_PDEATHSIG = 1


def workers_for(n_tasks: int, wanted: int | None = None) -> int:
    """How many processes share so many tasks of a second or so.

    `wanted`, or one for each core, but eight at most, and none for less than four tasks.
    """
    if wanted is not None:
        return max(1, min(wanted, n_tasks))
    return max(1, min(usable_cores(), _MOST_BY_DEFAULT, n_tasks // _TASKS_TO_PAY))


def map_in_processes(
    function: Callable[[Task], Result], tasks: Iterator[Task], workers: int
) -> Iterator[Result]:
    """The function's results in order, from several processes; with one, from this.

    Tasks are taken from the iterator when a process is nearly free: few exist at once.
    """
    if workers == 1:
        yield from map(function, tasks)
        return
    # Not forked: an object store's client has threads here, which a fork would lack.
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        waiting: list[Future[Result]] = []
        try:
            for task in tasks:
                waiting.append(pool.submit(function, task))
                if len(waiting) >= 2 * workers:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()


def usable_cores() -> int:
    """Those that this process may use: fewer than the machine has, inside an allocation."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def die_with_parent() -> None:
    """On Linux this process is killed when its parent ends, even if it is stuck in native code."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
