"""Runs read from packed bits against those of the masks themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amg.ops import rle
from amg.ops.borders import borders_of_words

SIDES = st.integers(1, 100) | st.sampled_from([32, 64, 96])


def pack(masks):
    """Bool masks (M, H, W) to words (M, W, ceil(H / 32)) uint32."""
    m, h, w = masks.shape
    columns = np.zeros((m, w, -(-h // 32) * 32), np.bool_)
    columns[:, :, :h] = masks.transpose(0, 2, 1)
    return np.packbits(columns, axis=2, bitorder="little").view("<u4")


def encode(masks, origin_xy, image_hw):
    place = masks.shape[1], *origin_xy, image_hw[0], image_hw[0] * image_hw[1]
    return rle.from_borders(*borders_of_words(pack(masks), *place), image_hw)


@settings(deadline=None)  # the first call compiles
@given(st.data())
def test_runs_of_words_are_those_of_the_masks(data):
    h, w = data.draw(SIDES), data.draw(SIDES)
    left, top, right, bottom = (data.draw(st.sampled_from([0, 0, 3])) for _ in range(4))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    share_on = rng.choice([0, 0.02, 0.5, 0.98, 1], size=(5, 1, w))  # of each column
    masks = rng.random((5, h, w)) < share_on
    image_hw = top + h + bottom, left + w + right
    padded = np.pad(masks, ((0, 0), (top, bottom), (left, right)))
    assert encode(masks, (left, top), image_hw) == rle.encode_masks(padded)


@pytest.mark.parametrize("row", range(64))
def test_a_bit_is_its_row(row):
    masks = np.zeros((2, 64, 3), np.bool_)
    masks[0, row, 1] = True
    masks[1] = ~masks[0]
    assert encode(masks, (0, 0), (64, 3)) == rle.encode_masks(masks)


def test_no_masks_have_no_runs():
    assert encode(np.zeros((0, 4, 5), np.bool_), (0, 0), (4, 5)) == []
