"""How exactly products are computed: float32 as the original, or faster ways that change masks.

- `float32`: every product in full, also where a GPU would round its inputs to TF32 by itself.
- `tf32`: products of a GPU's tensor cores, of inputs rounded to 10 bits of mantissa.
- `bf16`: the image encoder's products in bfloat16 (7 bits), the rest as `tf32`; norms, softmax and
  what is stored stay in float32.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch

Precision = Literal["float32", "tf32", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


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


@contextmanager
def encoder_in(precision: Precision, device: torch.device) -> Iterator[None]:
    """Inside, the layers of an image encoder compute in that precision."""
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        yield
