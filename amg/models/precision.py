"""How exactly products are computed: float32 as the original, or faster ways that change masks.

- `float32`: every product in full, also where a GPU would round its inputs to TF32 by itself.
- `tf32`: products of a GPU's tensor cores, of inputs rounded to 10 bits of mantissa.
- `bf16`: the image encoder's products in bfloat16 (7 bits), the rest as `tf32`; norms, softmax and
  what is stored stay in float32.
- `fp16`: the same in float16 (10 bits), for GPUs without bfloat16; values above 65504 overflow.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch

from amg.errors import ConfigError

Precision = Literal["float32", "tf32", "bf16", "fp16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
PRECISIONS_OF: Mapping[str, tuple[Precision, ...]] = {
    "cpu": ("float32", "bf16"),
    "mps": ("float32", "fp16"),
}
"""Those of the kinds of devices that have not all: float16 gains nothing on a CPU."""
_ENCODER_TYPES: Mapping[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def products_in(precision: Precision) -> Iterator[None]:
    """Set what float32 products of a GPU may round their inputs to; after, all is as before.

    Torch has one such setting for a process: threads that want the same share it, others wait.
    """
    with _setting.held("ieee" if precision == "float32" else "tf32"):
        yield


class _SharedSetting:
    """The setting of all products, held by some threads that agree on it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._value = ""
        self._n_holders = 0
        self._mine = threading.local()
        self._restore: Callable[[], None] = lambda: None

    @contextmanager
    def held(self, value: str) -> Iterator[None]:
        """Hold it at `value`, "ieee" or "tf32"; a thread may do so again, with the same."""
        outer = getattr(self._mine, "value", value)
        assert outer == value, "one thread wants two precisions at once"
        with self._changed:
            self._changed.wait_for(lambda: not self._n_holders or self._value == value)
            if not self._n_holders:
                self._value, self._restore = value, _set_products(value)
            self._n_holders += 1
        self._mine.value, is_first = value, not hasattr(self._mine, "value")
        try:
            yield
        finally:
            if is_first:
                del self._mine.value
            with self._changed:
                self._n_holders -= 1
                if not self._n_holders:
                    self._restore()
                    self._changed.notify_all()


_setting = _SharedSetting()


def _set_products(value: str) -> Callable[[], None]:
    """Set it, and give what restores all: what people set by torch's old names or by its new."""
    backends: Any = torch.backends  # its parts are made when it is imported
    convolutions = (backends.cudnn.conv, backends.cudnn.rnn)
    every = (backends.cuda.matmul, backends.mkldnn.matmul, *convolutions)
    before = [products.fp32_precision for products in every]
    try:
        by_old_name = torch.get_float32_matmul_precision()
    except RuntimeError:  # set by new names, to what the old one has no word for
        by_old_name = None
    torch.set_float32_matmul_precision("highest" if value == "ieee" else "high")
    for products in convolutions:
        products.fp32_precision = value

    def restore() -> None:
        if by_old_name is not None:
            torch.set_float32_matmul_precision(by_old_name)
        for products, earlier in zip(every, before, strict=True):
            products.fp32_precision = earlier

    return restore


def widest_float(device: torch.device) -> torch.dtype:
    """What coordinates are given to a device in: float64, which a Mac's GPU has not."""
    return torch.float32 if device.type == "mps" else torch.float64


@contextmanager
def encoder_in(precision: Precision, device: torch.device) -> Iterator[None]:
    """Inside, the layers of an image encoder compute in that precision."""
    dtype = _ENCODER_TYPES.get(precision)
    with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
        yield


def require_finite(features: torch.Tensor, precision: Precision) -> None:
    """Raise ConfigError where an encoder's values have become too large for float16.

    Such an image would have no masks, and nothing would say why.
    """
    if precision == "fp16" and not features.isfinite().all():
        raise ConfigError(
            "precision: the image encoder's values are too large for fp16; take bf16 or float32"
        )
