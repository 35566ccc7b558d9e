"""Label Studio's brush code, read back bit by bit as its page does."""

import numpy as np
import pytest
from hypothesis import given, settings

from amg.ops import brush_rle, rle
from tests.ops.shapes import SHAPES, masks


class _Bits:
    def __init__(self, data):
        self._text = "".join(f"{byte:08b}" for byte in data)
        self._at = 0

    def read(self, n):
        self._at += n
        return int(self._text[self._at - n : self._at], 2)


def _decode(data, size_hw):
    """@thi.ng/rle-pack, by its description."""
    bits = _Bits(data)
    n_values, value_bits = bits.read(32), bits.read(5) + 1
    sizes = [bits.read(4) + 1 for _ in range(4)]
    values = []
    while len(values) < n_values:
        is_run = bits.read(1)
        length = bits.read(sizes[bits.read(2)]) + 1
        if is_run:
            values += [bits.read(value_bits)] * length
        else:
            values += [bits.read(value_bits) for _ in range(length)]
    return np.array(values).reshape(*size_hw, 4)


def _check(bits):
    (mask,) = rle.encode_masks(bits[None])
    pixels = _decode(brush_rle.encode(mask), bits.shape)
    np.testing.assert_array_equal(pixels, np.repeat(bits[..., None] * 255, 4, axis=2))


@pytest.mark.parametrize("name", SHAPES)
def test_odd_shapes_are_read_back(name):
    _check(SHAPES[name])


@settings(max_examples=200, deadline=None)
@given(masks(12))
def test_any_mask_is_read_back(bits):
    _check(bits)


@pytest.mark.parametrize("n_pixels", [1, 2, 3, 4, 5, 64, 65, 2**14 - 1, 2**14, 2**14 + 1, 50_000])
def test_runs_of_every_length_are_read_back(n_pixels):
    bits = np.zeros((1, 60_000), bool)
    bits[:, 100 : 100 + n_pixels] = True
    _check(bits)


def test_an_empty_mask_is_read_back():
    _check(np.zeros((3, 4), bool))
