import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from amg.errors import RleError
from amg.evaluate.overlap import pairwise_iou, validated
from amg.ops import rle
from amg.records import Rle
from tests.evaluate.shapes import box, mask


def _batches(h, w):
    return arrays(np.bool_, st.tuples(st.integers(0, 4), st.just(h), st.just(w)))


@given(st.data(), st.integers(1, 6), st.integers(1, 6))
def test_iou_is_that_of_the_pixels(data, h, w):
    first, second = data.draw(_batches(h, w)), data.draw(_batches(h, w))
    ious = pairwise_iou(rle.encode_masks(first), rle.encode_masks(second))
    assert ious.shape == (len(first), len(second))
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            union = (a | b).sum()
            assert ious[i, j] == ((a & b).sum() / union if union else 0.0)


def test_masks_of_a_file_are_checked():
    good = mask(box((3, 4), 0, 2, 0, 2))
    assert validated([good]) == [good.rle]
    with pytest.raises(RleError):
        validated([good, mask(box((3, 4), 0, 1, 0, 1), rle=Rle((3, 4), "0f"))])
