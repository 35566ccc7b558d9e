"""Where our generator's time goes: its own functions under timers, without a line in its code.

While a profile is made the functions below are replaced, in the modules that call them, by ones
that take the time. A GPU is waited for before and after each, so that it does a stage's work while
that stage is timed: a profile is slower than what it profiles, and is a run of its own.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import wraps
from typing import Any
from unittest.mock import patch

import torch

from amg.generate import filters, generator, regions, selection, waiting
from amg.models.interface import PromptableModel

STAGES = ("encode", "decode", "measure", "nms", "rle")
"""Images to the model's input and through its encoder; prompts to low-res logits; stability and
boxes at full size; duplicates; survivors encoded as run lengths."""
OTHER = "other"
"""What is in no stage: grids, selections, records."""

_END = object()


def profile_stages(model: PromptableModel, work: Callable[[], Any]) -> dict[str, float]:
    """Seconds in each stage, and other, of `work`, which uses a generator with this model."""
    seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)
    with ExitStack() as patches:
        for owner, name, stage in _places(model):
            timed = _timed(getattr(owner, name), stage, seconds)
            patches.enter_context(patch.object(owner, name, timed))
        started = now()
        work()
        whole_s = now() - started
    return {**seconds, OTHER: whole_s - sum(seconds.values())}


def _places(model: PromptableModel) -> Iterator[tuple[Any, str, str]]:
    """Who calls what under which name, and the stage it is. No stage is within another."""
    yield model, "fit", "encode"
    yield model, "collate", "encode"
    yield model, "encode", "encode"
    yield model, "decode", "decode"
    yield filters, "measure_masks", "measure"
    yield waiting, "suppress_duplicates", "nms"
    yield selection, "suppress_duplicates", "nms"
    yield regions, "suppress_duplicates", "nms"
    yield generator, "encode_masks", "rle"


def _timed(function: Callable[..., Any], stage: str, seconds: dict[str, float]) -> Any:
    @wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        started = now()
        result = function(*args, **kwargs)
        seconds[stage] += now() - started
        return _timed_items(result, stage, seconds) if isinstance(result, Iterator) else result

    return timed


def _timed_items(items: Iterator[Any], stage: str, seconds: dict[str, float]) -> Iterator[Any]:
    """The same items: what is lazy does its work between them."""
    while True:
        started = now()
        item = next(items, _END)
        seconds[stage] += now() - started
        if item is _END:
            return
        yield item


def now() -> float:
    """Seconds by a clock that has waited for the GPU."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()
