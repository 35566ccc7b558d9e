"""Loops compiled to machine code, where neither torch nor numpy has the operation in one pass."""

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at the first call: some seconds for all, once a machine.

    Without the GIL, so that threads of ours share the work: numba's own pool is not safe under
    threads that others start.
    """
    return _jit(function)


def compiled_sums(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same, where sums may have their terms in any order, and products be rounded with them.

    That lets the compiler use vectors. Infinities and NaN keep their meaning.
    """
    return _jit(function, fastmath={"contract", "reassoc", "nsz"})


def _jit(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    options |= {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder that numba may write to: each process compiles anew
        return numba.njit(**options)(function)
