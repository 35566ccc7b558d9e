"""Share work between threads of our own, each of which computes with one thread.

Many small products in a row, as the mask decoder makes them, gain little from threads inside each;
whole chunks in threads do. Torch and our compiled loops release Python's lock while they compute.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import numpy as np
import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Apply `work` to each item, in as many threads as torch would use; results in order.

    Inside, inference mode and gradients are on or off as outside. `work` itself must not call this.
    """
    n_threads = torch.get_num_threads()
    if n_threads == 1 or len(items) <= 1:
        return [work(item) for item in items]
    in_inference, with_grad = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def work_alike(item: Item) -> Result:
        with torch.inference_mode(in_inference), torch.set_grad_enabled(with_grad):
            return work(item)

    try:
        return list(_pool(os.getpid(), n_threads).map(work_alike, items))
    finally:
        # A number set in one thread is also what threads not yet born start with: mend that.
        torch.set_num_threads(n_threads)


def map_parts(work: Callable[[np.ndarray], Result], array: np.ndarray) -> list[Result]:
    """Apply `work` to parts of an array, a few for each thread; results in order."""
    n_parts = min(len(array), 4 * torch.get_num_threads())
    return map_in_threads(work, np.array_split(array, max(1, n_parts)))


@cache
def _pool(process: int, n_threads: int) -> ThreadPoolExecutor:  # one a process: forks have none
    def compute_alone() -> None:
        torch.get_num_threads()  # torch sets a new thread up at its first question, over our number
        torch.set_num_threads(1)

    return ThreadPoolExecutor(n_threads, "amg", initializer=compute_alone)
