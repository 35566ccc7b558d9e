"""How many pixels masks cover together, straight from their COCO count strings.

A union needs no order: each run sets its bits in one bitmap of the image, a word at a time, so the
cost is that of reading the strings and, per mask, an eighth of a byte a pixel of its area at most.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from amg.errors import RleError
from amg.ops.compiled import compiled
from amg.ops.run_ends import NOT_VALID, read_ends
from amg.records import Rle

Int64s = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

_WORD_BITS = 64


def covered_pixels(masks: Sequence[Rle]) -> int:
    """Count the pixels under at least one of an image's masks. Raises RleError as the next one."""
    if not masks:
        return 0
    text = "".join(mask.counts for mask in masks).encode("ascii", "replace")
    starts = np.cumsum([0, *(len(mask.counts) for mask in masks)])
    h, w = masks[0].size_hw
    covered = covered_pixels_of_images(
        np.frombuffer(text, np.uint8), starts, np.array([0, len(masks)]), np.array([h * w])
    )
    return int(covered[0])


def covered_pixels_of_images(
    text: Bytes, starts: Int64s, firsts: Int64s, n_pixels: Int64s
) -> Int64s:
    """Count the pixels under at least one mask, for B images with M masks in all; (B,).

    text: the count strings end to end; string m is text[starts[m]:starts[m + 1]], `starts`
    (M + 1,). Image i has the masks firsts[i] to firsts[i + 1], `firsts` (B + 1,), and n_pixels[i]
    pixels. These are the buffers of an Arrow column. Memory: a bit a pixel of the largest image.

    Raises RleError naming the first mask whose counts do not fill its image.
    """
    covered, bad_mask = _count_covered(text, starts, firsts, n_pixels)
    if bad_mask >= 0:
        raise RleError(f"counts of mask {bad_mask}: they do not fill its image")
    return covered


@compiled
def _count_covered(
    text: Bytes, starts: Int64s, firsts: Int64s, n_pixels: Int64s
) -> tuple[Int64s, int]:
    """The counts, and the first mask that is not valid or -1."""
    covered = np.zeros(len(n_pixels), np.int64)
    words = np.zeros(0, np.uint64)
    for i in range(len(n_pixels)):
        if firsts[i] == firsts[i + 1]:
            continue
        n_words = (n_pixels[i] + _WORD_BITS - 1) // _WORD_BITS
        if n_words > len(words):
            words = np.zeros(n_words, np.uint64)
        words[:n_words] = 0
        for m in range(firsts[i], firsts[i + 1]):
            if not _set_runs(words, text[starts[m] : starts[m + 1]], n_pixels[i]):
                return covered, m
        for k in range(n_words):
            covered[i] += _count_bits(words[k])
    return covered, -1


@compiled
def _set_runs(words: npt.NDArray[np.uint64], text: Bytes, n_pixels: int) -> bool:
    """Set the bits of a mask's runs; False, with none set, for a string that is not valid."""
    ends = np.empty(len(text), np.int64)
    n_runs = read_ends(text, n_pixels, ends)
    for k in range(1, n_runs, 2):
        if ends[k - 1] < ends[k]:
            _set_bits(words, ends[k - 1], ends[k])
    return n_runs != NOT_VALID


@compiled
def _set_bits(words: npt.NDArray[np.uint64], begin: int, end: int) -> None:
    """Set the bits from `begin` up to `end`, which is more."""
    ones = ~np.uint64(0)
    first, last = begin // _WORD_BITS, (end - 1) // _WORD_BITS
    head = ones << np.uint64(begin % _WORD_BITS)
    tail = ones >> np.uint64(_WORD_BITS - 1 - (end - 1) % _WORD_BITS)
    if first == last:
        words[first] |= head & tail
        return
    words[first] |= head
    for k in range(first + 1, last):
        words[k] = ones
    words[last] |= tail


@compiled
def _count_bits(word: np.uint64) -> np.int64:
    """The ones in 64 bits, by sums of neighbouring bits, pairs, fours, and all bytes at once."""
    word -= (word >> np.uint64(1)) & np.uint64(0x5555555555555555)
    pairs = np.uint64(0x3333333333333333)
    word = (word & pairs) + ((word >> np.uint64(2)) & pairs)
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))
