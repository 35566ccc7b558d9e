"""Many foreign masks checked at once: one by one takes several times as long."""

from collections.abc import Sequence

import numpy as np

from amg.ops import rle
from amg.records import Rle

_SURE_CHARS = 6  # longer numbers are legal up to a sign that pycocotools misreads


def validate_all(masks: Sequence[Rle]) -> list[Rle]:
    """Masks that pycocotools may read: the same ones, or what `rle.validate` makes of them.

    Those that are plainly valid are known from one pass over all of their characters; only
    others are read one by one. Raises RleError as `rle.validate` does, for the first one at fault.
    """
    is_plain = _are_plain(masks)
    return [
        mask if plain else rle.validate(mask.counts, mask.size_hw)
        for mask, plain in zip(masks, is_plain.tolist(), strict=True)
    ]


def _are_plain(masks: Sequence[Rle]) -> np.ndarray:
    """Which masks are valid beyond doubt, (M,) bool: whole numbers that fill the mask."""
    if not all(_has_size(mask) and mask.counts and mask.counts.isascii() for mask in masks):
        return np.zeros(len(masks), dtype=bool)
    text = "".join(mask.counts for mask in masks).encode("ascii")
    digits = np.frombuffer(text, np.uint8) - np.uint8(48)
    stops = np.cumsum([len(mask.counts) for mask in masks], dtype=np.int64)
    if not len(masks) or digits.max() > 63 or (digits[stops - 1] >= 32).any():
        return np.zeros(len(masks), dtype=bool)
    numbers, n_chars = _numbers(digits)
    n_numbers = np.diff(np.searchsorted(np.flatnonzero(digits < 32), stops), prepend=0)
    owner = np.repeat(np.arange(len(masks)), n_numbers)
    lengths = _run_lengths(numbers, n_numbers)
    # Sums may overflow only where a length is out of range, and so in doubt.
    totals = np.add.reduceat(lengths, np.cumsum(n_numbers) - n_numbers)
    n_pixels = np.array([mask.size_hw[0] * mask.size_hw[1] for mask in masks])
    is_doubtful = (n_chars > _SURE_CHARS) | (lengths < 0) | (lengths > n_pixels[owner])
    n_doubtful = np.bincount(owner[is_doubtful], minlength=len(masks))
    return (n_doubtful == 0) & (totals == n_pixels)


def _has_size(mask: Rle) -> bool:
    height, width = mask.size_hw
    return height >= 1 and width >= 1 and height * width <= rle.MAX_PIXELS


def _numbers(digits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The signed numbers of count strings laid end to end, and how many characters each has.

    Of those with more than `_SURE_CHARS` only the low bits.
    """
    lasts = np.flatnonzero(digits < 32)
    n_chars = np.diff(lasts, prepend=-1)
    firsts = lasts - n_chars + 1
    numbers = np.zeros(len(lasts), np.int64)
    n_read = np.minimum(n_chars, _SURE_CHARS)
    for k in range(int(n_read.max(initial=0))):
        longer = np.flatnonzero(n_read > k)
        numbers[longer] |= (digits[firsts[longer] + k] & 31).astype(np.int64) << 5 * k
    numbers -= np.where(digits[lasts] & 16, np.int64(1) << 5 * n_read, 0)
    return numbers, n_chars


def _run_lengths(numbers: np.ndarray, n_numbers: np.ndarray) -> np.ndarray:
    """Run lengths of strings laid end to end: from the fourth on they are differences."""
    firsts = np.repeat(np.cumsum(n_numbers) - n_numbers, n_numbers)
    place = np.arange(len(numbers)) - firsts
    lengths = numbers.copy()
    for is_of_kind in (place % 2 == 1, (place % 2 == 0) & (place > 0)):
        sums = np.cumsum(np.where(is_of_kind, numbers, 0))
        before = np.where(firsts > 0, sums[firsts - 1], 0)
        lengths[is_of_kind] = (sums - before)[is_of_kind]
    return lengths
