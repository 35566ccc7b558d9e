import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from amg.errors import RleError
from amg.ops import rle
from amg.ops.rle_batch import _are_plain, validate_all
from amg.records import Rle

BITS = arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))
TEXTS = st.text(alphabet=[chr(c) for c in range(46, 114)], max_size=8)
FOREIGN = st.builds(Rle, st.tuples(st.integers(0, 4), st.integers(-1, 4)), TEXTS)
OURS = BITS.map(lambda bits: rle.encode_masks(bits[None])[0])


@given(st.lists(OURS, max_size=6))
def test_masks_of_ours_are_plain(masks):
    assert _are_plain(masks).all()
    assert validate_all(masks) == masks


@given(st.lists(OURS | FOREIGN, max_size=4))
def test_others_are_what_one_by_one_makes_of_them(masks):
    try:
        expected = [rle.validate(mask.counts, mask.size_hw) for mask in masks]
    except RleError as error:
        with pytest.raises(RleError) as raised:
            validate_all(masks)
        assert str(raised.value) == str(error)
        return
    for found, one_by_one in zip(validate_all(masks), expected, strict=True):
        np.testing.assert_array_equal(rle.decode(found), rle.decode(one_by_one))


@given(st.lists(st.lists(st.integers(-5, 40), min_size=1, max_size=8), min_size=1, max_size=4))
def test_only_valid_lengths_are_plain(batch):
    """Run lengths of any kind, as strings: those that fill the mask and no others."""
    masks = [Rle((1, max(sum(lengths), 1)), _text(lengths)) for lengths in batch]
    for mask, lengths, is_plain in zip(masks, batch, _are_plain(masks), strict=True):
        assert is_plain == (min(lengths) >= 0 and sum(lengths) >= 1)
        assert rle.parse_counts(mask.counts).tolist() == lengths


def test_what_pycocotools_misreads_is_refused():
    """A length that falls by more than 2**29 has seven characters."""
    large = 2**29 + 2
    lengths = [0, large, 1, 1, 5]
    mask = Rle((1, sum(lengths)), _text(lengths))
    assert not _are_plain([mask]).any()
    with pytest.raises(RleError, match=r"falls by over 2\*\*29"):
        validate_all([mask])


def _text(lengths):
    """Any whole numbers in COCO's printable form."""
    text = ""
    for k, length in enumerate(lengths):
        value = length - lengths[k - 2] if k > 2 else length
        more = True
        while more:
            digit, value = value & 31, value >> 5
            more = value != (-1 if digit & 16 else 0)
            text += chr((digit | 32 if more else digit) + 48)
    return text
