"""How exactly products are computed: float32 as the original, or faster ways that change masks.

- `float32`: every product in full, also where a GPU would round its inputs to TF32 by itself.
- `tf32`: products of a GPU's tensor cores, of inputs rounded to 10 bits of mantissa.
- `bf16`: the image encoder's products in bfloat16 (7 bits), the rest as `tf32`; norms, softmax and
  what is stored stay in float32.
- `fp16`: the same in float16 (10 bits), for GPUs without bfloat16; values above 65504 overflow.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, get_args

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
    """Set what float32 products of a GPU may round their inputs to; after, all is as before."""
    is_exact = precision == "float32"
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest" if is_exact else "high")
    try:
        with torch.backends.cudnn.flags(allow_tf32=not is_exact):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


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
