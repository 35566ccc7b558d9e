from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from amg.errors import RleError
from amg.evaluate.iou import pairwise_iou, validated
from amg.ops import rle
from amg.records import Rle
from tests.evaluate.shapes import box, mask

SIZES = st.tuples(st.integers(1, 6), st.integers(1, 6))
FOREIGN = st.text(alphabet=[chr(c) for c in range(46, 114)], max_size=8)
RECORD = mask(box((1, 1), 0, 1, 0, 1))


def _batches(size_hw, least=0):
    return arrays(np.bool_, st.tuples(st.integers(least, 4), *map(st.just, size_hw)))


def _of_file(shapes):
    return [replace(RECORD, rle=shape) for shape in shapes]


@given(st.data(), SIZES)
def test_iou_is_that_of_the_pixels(data, size_hw):
    first, second = data.draw(_batches(size_hw)), data.draw(_batches(size_hw))
    ious = pairwise_iou(rle.encode_masks(first), rle.encode_masks(second))
    assert ious.shape == (len(first), len(second))
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            union = (a | b).sum()
            assert ious[i, j] == ((a & b).sum() / union if union else 0.0)


@settings(deadline=None)
@given(SIZES.flatmap(_batches))
def test_masks_of_ours_are_valid_as_they_are(masks):
    shapes = rle.encode_masks(masks)
    assert validated(_of_file(shapes)) == shapes


@settings(deadline=None)
@given(st.data(), st.tuples(st.integers(0, 3), st.integers(-1, 3)), st.lists(FOREIGN, max_size=3))
def test_others_are_what_one_by_one_makes_of_them(data, size_hw, texts):
    shapes = [Rle(size_hw, text) for text in texts]
    if min(size_hw) > 0:
        shapes += rle.encode_masks(data.draw(_batches(size_hw)))
    try:
        expected = [rle.validate(shape.counts, shape.size_hw) for shape in shapes]
    except RleError as error:
        with pytest.raises(RleError) as raised:
            validated(_of_file(shapes))
        assert str(raised.value) == str(error)
        return
    for found, one_by_one in zip(validated(_of_file(shapes)), expected, strict=True):
        np.testing.assert_array_equal(rle.decode(found), rle.decode(one_by_one))


def test_images_of_impossible_size_are_refused_before_any_work():
    with pytest.raises(RleError, match="are more than"):
        validated(_of_file([Rle((2**30, 2**30), "1")]))


def test_numbers_that_pycocotools_misreads_are_written_anew():
    """6 off, then 6 on, the second number in seven characters; and one that cannot be written."""
    shape = Rle((3, 4), "6VPPPPP0")
    assert rle.runs(shape).tolist() == [6, 6]
    assert [found.counts for found in validated(_of_file([shape]))] == ["66"]
    most = 2**29 + 3
    counts = "".join(map(_text, [0, most, 1, 1 - most, 5 - 1]))
    falls = Rle((1, most + 7), counts)
    assert rle.runs(falls).tolist() == [0, most, 1, 1, 5]
    with pytest.raises(RleError, match=r"falls by over 2\*\*29"):
        validated(_of_file([falls]))


def _text(value):
    """A whole number in COCO's printable form."""
    text, more = "", True
    while more:
        digit, value = value & 31, value >> 5
        more = value != (-1 if digit & 16 else 0)
        text += chr((digit | 32 if more else digit) + 48)
    return text
