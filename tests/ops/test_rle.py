import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from amg.errors import RleError
from amg.ops import rle as rle_module
from amg.ops.rle import (
    area,
    compress_counts,
    covers,
    decode,
    encode_masks,
    from_coco,
    from_runs,
    parse_counts,
    pixel_box_xywh,
    runs,
    to_coco,
    validate,
)
from amg.records import Rle

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIDES = st.integers(1, 40)


def pattern(kind, h, w, seed):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    if kind == "noise":
        return rng.random((h, w)) < rng.random()
    if kind == "blob":
        cy, cx, radius = rng.random(3) * (h, w, max(h, w))
        return (y - cy) ** 2 + (x - cx) ** 2 < radius**2
    if kind == "rows":
        return (y + rng.integers(9)) // rng.integers(1, 9) % 2 == 1
    if kind == "columns":
        return (x + rng.integers(9)) // rng.integers(1, 9) % 2 == 1
    if kind == "pixel":
        return (y == rng.integers(h)) & (x == rng.integers(w))
    return np.full((h, w), kind == "one")


KINDS = st.sampled_from(["noise", "blob", "rows", "columns", "pixel", "zero", "one"])


@st.composite
def mask_batches(draw):
    h, w = draw(SIDES), draw(SIDES)
    picks = draw(st.lists(st.tuples(KINDS, st.integers(0, 2**32 - 1)), min_size=1, max_size=6))
    return np.stack([pattern(kind, h, w, seed) for kind, seed in picks])


def oracle(mask):
    return coco.encode(np.asfortranarray(mask.astype(np.uint8)))


def sloppy(counts):
    """A count string that decodes the same, with one character more a number where it fits."""
    text, start = "", 0
    for i, char in enumerate(counts):
        digit = ord(char) - 48
        if digit >= 32:
            text += char
            continue
        short = i - start < 6
        text += chr(digit + 80) + ("O" if digit & 16 else "0") if short else char
        start = i + 1
    return text


@given(mask_batches())
def test_agrees_with_pycocotools(masks):
    encoded = encode_masks(masks)
    assert len(encoded) == len(masks)
    for mask, rle in zip(masks, encoded, strict=True):
        theirs = oracle(mask)
        assert rle == Rle(mask.shape, theirs["counts"].decode())
        decoded = decode(rle)
        assert decoded.dtype == np.bool_ and decoded.shape == mask.shape
        np.testing.assert_array_equal(decoded, mask)
        assert area(rle) == coco.area(theirs) == mask.sum()
        assert pixel_box_xywh(rle) == tuple(coco.toBbox(theirs))
        assert from_runs(runs(rle), rle.size_hw) == rle
        assert from_coco(to_coco(rle)) == from_coco(theirs) == rle
        np.testing.assert_array_equal(coco.decode(to_coco(rle)), mask)


@given(mask_batches(), st.integers(1, 4000))
def test_chunks_do_not_show(masks, chunk_pixels):
    whole = encode_masks(masks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rle_module, "_CHUNK_PIXELS", chunk_pixels)
        assert encode_masks(masks) == whole


@pytest.mark.parametrize("view", ["transposed", "fortran", "strided", "flipped"])
def test_memory_layout_does_not_matter(view):
    masks = np.random.default_rng(0).random((3, 8, 10)) < 0.5
    masks = {
        "transposed": masks.transpose(0, 2, 1),
        "fortran": np.asfortranarray(masks),
        "strided": masks[::2, ::3, 1::2],
        "flipped": masks[:, ::-1, ::-1],
    }[view]
    masks.flags.writeable = False
    assert encode_masks(masks) == encode_masks(masks.copy())


def test_empty_batch():
    assert encode_masks(np.zeros((0, 4, 5), bool)) == []
    assert compress_counts([]) == []
    assert compress_counts([np.zeros(0, np.int64), np.array([7])]) == ["", "7"]
    assert parse_counts("").tolist() == []


@pytest.mark.parametrize(
    "masks",
    [
        np.zeros((4, 5), bool),
        np.zeros((1, 4, 5), np.uint8),
        np.zeros((1, 0, 5), bool),
        np.zeros((1, 4, 0), bool),
        [[[True]]],
        np.broadcast_to(np.array(True), (1, 2**16, 2**15)),
    ],
)
def test_encode_refuses(masks):
    with pytest.raises(RleError):
        encode_masks(masks)


def test_differences_start_at_the_fourth_count():
    # Written out by hand: 1, 2, 3 whole, then 9 - 2 = 7 and 1 - 3 = -2 (0b11110: 'N').
    assert compress_counts([np.array([1, 2, 3, 9, 1])]) == ["1237N"]
    assert parse_counts("1237N").tolist() == [1, 2, 3, 9, 1]
    # With a difference from the third on, the third would be 2; from the fifth, the fourth 9.
    theirs = coco.frPyObjects({"size": [4, 4], "counts": [1, 2, 3, 9, 1]}, 4, 4)
    assert theirs["counts"] == b"1237N"


# Below 2**24, for pycocotools' rleToString has room for six characters a count and no final zero.
@given(st.lists(st.lists(st.integers(0, 2**24 - 1), max_size=9), max_size=4))
def test_strings_of_a_batch_are_those_of_its_members(batch):
    arrays = [np.array(lengths, np.int64) for lengths in batch]
    strings = compress_counts(arrays)
    assert strings == [compress_counts([lengths])[0] for lengths in arrays]
    for lengths, string in zip(batch, strings, strict=True):
        assert parse_counts(string).tolist() == lengths
        assert parse_counts(string.encode()).tolist() == lengths
        if lengths:
            theirs = coco.frPyObjects({"size": [1, 1], "counts": lengths}, 1, 1)
            assert string.encode() == theirs["counts"]


def test_large_mask_with_long_counts():
    mask = np.zeros((2300, 2100), bool)
    mask[:, 600:1200] = True
    mask[7, 1700] = True
    mask[-1, -1] = True
    (rle,) = encode_masks(mask[None])
    assert runs(rle).max() >= 2**20
    assert rle.counts.encode() == oracle(mask)["counts"]
    np.testing.assert_array_equal(decode(rle), mask)
    np.testing.assert_array_equal(coco.decode(to_coco(rle)), mask)


@pytest.mark.parametrize("edge", [2**k + d for k in (4, 9, 14, 19, 24, 29) for d in (-1, 0, 1)])
def test_every_number_of_characters(edge):
    for lengths in ([edge, 1], [0, edge, 1], [1, 2, 3, 2 + edge], [1, edge, 1, 1]):
        size = (1, sum(lengths))
        rle = from_runs(lengths, size)
        theirs = coco.frPyObjects({"size": size, "counts": lengths}, *size)
        assert rle.counts.encode() == theirs["counts"]
        assert area(rle) == coco.area(theirs) == coco.area(to_coco(rle))
        assert validate(theirs["counts"], size) == rle


def test_refuses_a_fall_that_pycocotools_misreads():
    lengths = [0, 2**29 + 2, 1, 1]
    size = (1, sum(lengths))
    theirs = coco.frPyObjects({"size": size, "counts": lengths}, *size)
    assert coco.area(theirs) != 2**29 + 3  # the reason; area reads counts, makes no mask
    assert parse_counts(theirs["counts"]).tolist() == lengths
    with pytest.raises(RleError, match="falls"):
        validate(theirs["counts"], size)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.integers(1, 8))
def test_from_runs_with_empty_runs(lengths, h):
    lengths.append(-sum(lengths) % h or h)
    size = (h, sum(lengths) // h)
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    mask = flat.reshape(size[::-1]).T
    rle = from_runs(lengths, size)
    assert rle == encode_masks(mask[None])[0]
    assert area(rle) == sum(lengths[1::2])
    assert from_coco({"size": list(size), "counts": lengths}) == rle
    assert validate(np.array(lengths, np.int32), size) == rle
    foreign = compress_counts([np.array(lengths)])[0]
    raw = Rle(size, foreign)  # not canonical, yet nothing breaks
    np.testing.assert_array_equal(decode(raw), mask)
    assert area(raw) == area(rle)
    assert pixel_box_xywh(raw) == pixel_box_xywh(rle)
    assert validate(foreign, size) == validate(foreign.encode(), size) == rle
    assert validate(sloppy(foreign), size) == rle


BAD_COUNTS = {
    "character below": ("1/", "character 1 is"),
    "character above": ("1p", "character 1 is"),
    "NUL": ("1\0", "character 1 is"),
    "high byte": (b"12\xff", "character 2 is"),
    "non-ASCII": ("1\N{BULLET}", "character 1 is not ASCII"),
    "surrogate": ("12\ud800", "character 2 is not ASCII"),
    "cut off": ("1P", "cut off after character 1"),
    "only continuation": ("P" * 50, "cut off"),
    "eight characters": ("1" + "P" * 7 + "0", "count 1, from character 1 on"),
    "negative": ("1N", "count 1 is -2"),
    "negative by difference": ("125L", "count 3 is -2"),
    "too large": ("m0", "count 0 is 29"),
    "sum too small": ("5", "sum is 5"),
    "sum too large": ("<1", "sum is 13"),
    "empty": ("", "sum is 0"),
    "None": (None, "NoneType"),
    "int": (12, "int"),
    "bytearray": (bytearray(b"<"), "bytearray"),
    "dict": ({0: 12}, "dict"),
    "list of str": (["1", "11"], "integers"),
    "list of float": ([1.0, 11.0], "integers"),
    "list of bool": ([True] * 12, "integers"),
    "list of None": ([None], "integers"),
    "nested": ([[12]], "integers"),
    "ragged": ([[1], [2, 3]], "integers"),
    "huge": ([10**5000], "integers"),
    "64 bits": ([2**64 - 1, 13], "integers"),
    "unsigned 64 bits": (np.array([2**64 - 1, 13], np.uint64), "count 0 is 18446744073709551615"),
    "list negative": ([13, -1], "count 0 is 13"),
    "list negative second": ([12, -1, 1], "count 1 is -1"),
    "list sum": ([5, 6], "sum is 11"),
    "list empty": ([], "sum is 0"),
}


@pytest.mark.parametrize("case", BAD_COUNTS)
def test_validate_refuses_counts(case):
    counts, message = BAD_COUNTS[case]
    with pytest.raises(RleError, match=message):
        validate(counts, (3, 4))


BAD_SIZES = [
    *[(0, 4), (3, 0), (-3, -4), (3,), (3, 4, 1), (3.0, 4), ("3", "4"), "34", None, 12, (None, 4)],
    *[(True, 12), (2**16, 2**15), (10**5000, 1), (-(10**5000), 1), (2**63, 2**63), {}],
]


@pytest.mark.parametrize("size", BAD_SIZES, ids=range(len(BAD_SIZES)))
def test_refuses_sizes(size):
    for make in (validate, from_runs):
        with pytest.raises(RleError, match="size"):
            make([12], size)
    with pytest.raises(RleError, match="size"):
        decode(Rle(size, "<"))


def test_validate_caps_pixels():
    assert validate([12], (3, 4), max_pixels=12) == Rle((3, 4), "<")
    with pytest.raises(RleError, match="more than 11"):
        validate([12], (3, 4), max_pixels=11)
    with pytest.raises(RleError, match="more than 11"):
        from_coco({"size": [3, 4], "counts": "<"}, max_pixels=11)
    with pytest.raises(RleError, match="more than"):
        validate([2**32], (2**16, 2**16), max_pixels=2**40)
    most = validate([2**31 - 1], [1, 2**31 - 1])  # allocates nothing of that size
    assert coco.area(to_coco(most)) == area(most) == 0


@pytest.mark.parametrize("segmentation", [None, [], "x", {}, {"size": [3, 4]}, {"counts": "<"}])
def test_from_coco_refuses(segmentation):
    with pytest.raises(RleError):
        from_coco(segmentation)


@pytest.mark.parametrize("bad", [[-1, 2], [2**31], np.array([2**63 - 1])])
def test_compress_refuses(bad):
    with pytest.raises(RleError, match="count 0"):
        compress_counts([np.array([1]), np.array(bad)])


@pytest.mark.parametrize("read", [decode, area, pixel_box_xywh, runs])
@pytest.mark.parametrize("counts", ["5", "P", "1N", "~", "<1"])
def test_readers_refuse_a_broken_rle(read, counts):
    with pytest.raises(RleError):
        read(Rle((3, 4), counts))


ALPHABET = "".join(map(chr, range(48, 112)))


@settings(max_examples=400)
@given(
    st.text(ALPHABET, max_size=9) | st.text(st.characters(max_codepoint=127), max_size=9),
    st.integers(1, 6),
)
@example("000" + "0" * 30 + "6", 6)
@example("1237nooooo" + "O", 4)
def test_fuzzed_strings_are_refused_or_mean_the_same_to_pycocotools(counts, h):
    size = (h, 4)
    try:
        # A size that fits, where the string has one, so that many get past the sum.
        total = int(parse_counts(counts).sum())
        size = (h, total // h) if total > 0 and total % h == 0 else size
        rle = validate(counts, size, max_pixels=10**6)
    except RleError:
        return
    mask = decode(rle)
    np.testing.assert_array_equal(coco.decode(to_coco(rle)), mask)
    if not re.search("[P-o]{6}", counts):  # pycocotools misreads negatives of seven characters
        np.testing.assert_array_equal(coco.decode({"size": list(size), "counts": counts}), mask)
    assert encode_masks(mask[None]) == [rle]
    assert coco.area(to_coco(rle)) == area(rle)
    assert tuple(coco.toBbox(to_coco(rle))) == pixel_box_xywh(rle)


@given(mask_batches(), st.data())
def test_covers_is_the_pixel_of_a_mask(masks, data):
    h, w = masks.shape[1:]
    x, y = data.draw(st.integers(0, w - 1)), data.draw(st.integers(0, h - 1))
    for mask, rle in zip(masks, encode_masks(masks), strict=True):
        assert covers(rle, x, y) == mask[y, x]
        assert not any(covers(rle, *outside) for outside in [(-1, y), (x, -1), (w, y), (x, h)])
