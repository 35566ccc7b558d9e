"""The quick way back of depthwise convolutions against torch's own."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pipelines.train.depthwise import QuickDepthwise


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "side"),
    [(3, 1, 1, 11), (5, 1, 2, 12), (5, 2, 0, 15), (5, 2, 2, 16), (7, 1, 3, 13), (3, 2, 0, 10)],
)
def test_gradients_are_those_of_torch(kernel: int, stride: int, padding: int, side: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, side, side, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 1, kernel, kernel, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, dtype=torch.float64, requires_grad=True)
    expected = F.conv2d(x, weight, bias, stride, padding, groups=4)
    with QuickDepthwise():
        y = F.conv2d(x, weight, bias, stride, padding, groups=4)
    weights = torch.randn_like(y)
    torch.testing.assert_close(y, expected)
    for mine, torchs in zip(
        torch.autograd.grad(y, (x, weight, bias), weights),
        torch.autograd.grad(expected, (x, weight, bias), weights),
        strict=True,
    ):
        torch.testing.assert_close(mine, torchs)


def test_other_convolutions_stay_as_they_are() -> None:
    conv = nn.Conv2d(3, 5, 3, padding=1)
    x = torch.randn(1, 3, 8, 8)
    with QuickDepthwise():
        y = conv(x)
    torch.testing.assert_close(y, conv(x), rtol=0, atol=0)
    assert y.grad_fn is not None
    assert "DepthwiseConv" not in type(y.grad_fn).__name__
