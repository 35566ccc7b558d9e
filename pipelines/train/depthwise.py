"""Depthwise convolutions whose way back is quick on a CPU.

oneDNN is slow in bfloat16 at the gradient of kernels larger than 3 x 3, 50 times the way there,
and at that of a strided convolution's input, 30 times. Both are put together from what it is quick
at.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

_QUICK_KERNEL = 3


class QuickDepthwise(TorchFunctionMode):
    """Within this context each depthwise `conv2d` has the way back of this module."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run `func`, or what stands for it here."""
        return (_conv2d if func is F.conv2d else func)(*args, **(kwargs or {}))


def _conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> torch.Tensor:
    if groups == 1:
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    stride, padding = (v if isinstance(v, int) else v[0] for v in (stride, padding))
    y: torch.Tensor = _DepthwiseConv.apply(F.pad(x, [padding] * 4), weight, stride)
    return y if bias is None else y + bias[:, None, None]


class _DepthwiseConv(torch.autograd.Function):
    """Images (B, C, H, W) and kernels (C, 1, k, k) to (B, C, (H - k) / stride + 1, ...)."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, stride: int) -> torch.Tensor:
        """Convolve, and keep what the way back needs."""
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv2d(x, weight, None, stride, groups=len(weight))

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        """The gradients of the images and of the kernels."""
        x, weight = ctx.saved_tensors
        grad = grad_outputs[0].contiguous(memory_format=torch.channels_last)
        inputs = (grad, x, weight, ctx.stride)
        return _input_gradient(*inputs), _kernel_gradient(*inputs), None


def _input_gradient(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, stride: int
) -> torch.Tensor:
    """Convolve with the kernels turned round; a stride puts zeros between the gradient's pixels."""
    (rows, columns), kernel = grad.shape[2:], weight.shape[-1]
    if stride > 1:
        size_hw = ((n - 1) * stride + 1 for n in (rows, columns))
        spread = torch.empty(
            *grad.shape[:2], *size_hw, dtype=grad.dtype, memory_format=torch.channels_last
        ).zero_()
        spread[:, :, ::stride, ::stride] = grad
        grad = spread
    inner = F.conv2d(grad, weight.flip(2, 3), None, 1, kernel - 1, groups=len(weight))
    # The last rows and columns may have had no part in the output.
    below, right = (n - m for n, m in zip(x.shape[2:], inner.shape[2:], strict=True))
    return F.pad(inner, (0, right, 0, below)) if below or right else inner


def _kernel_gradient(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, stride: int
) -> torch.Tensor:
    """A large kernel's gradient is put together from windows of 3 x 3."""
    gradient = torch.empty_like(weight)
    kernel = weight.shape[-1]
    window = min(kernel, _QUICK_KERNEL)
    reach_h, reach_w = ((n - 1) * stride + window for n in grad.shape[2:])
    starts = sorted({*range(0, kernel - window, window), kernel - window})
    for row, column in product(starts, starts):
        part = weight[:, :, row : row + window, column : column + window]
        gradient[:, :, row : row + window, column : column + window] = (
            torch.ops.aten.convolution_backward(
                grad,
                x[:, :, row : row + reach_h, column : column + reach_w],
                part.contiguous(),
                None,
                [stride, stride],
                [0, 0],
                [1, 1],
                False,
                [0, 0],
                len(weight),
                [False, True, False],
            )[1]
        )
    return gradient
