"""Masks as COCO run lengths: from transitions straight to the printable form, and back.

The format is that of pycocotools (`common/maskApi.c`, named per function); the code is ours,
vectorised over a batch. A count string holds, for each run length, a signed number of 5 bits a
character, low bits first: characters 48..111, bit 5 set while more follow, bit 4 of the last one
the sign. From the fourth count on the number is the difference to the count two before.

Every `Rle` made here is canonical (no empty run but a leading one, fewest characters), so equal
masks have equal strings and pycocotools reads back exactly what we mean. What comes from outside
passes through `validate`, which never trusts it; pycocotools itself can crash on bad input.
"""

import operator
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from amg.errors import RleError
from amg.records import Rle

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

MAX_PIXELS = 2**31 - 1
"""Most pixels of one mask: pycocotools counts in 32 bits."""

_CHUNK_PIXELS = 1 << 20  # pixels encoded at once: small enough for the cache, one mask at least
_MAX_CHARS = 7  # 35 bits, the first length that holds every difference of 32-bit counts
_LIMITS = 16 << 5 * np.arange(_MAX_CHARS - 1)  # magnitudes that need one character more


def encode_masks(masks: Bools) -> list[Rle]:
    """Encode (M, H, W) bool masks, byte for byte as pycocotools would (rleEncode, rleToString).

    Work memory is a byte for each pixel of a chunk (2**20 pixels, or one mask if that is more)
    and some 60 for each of its runs.

    Raises RleError for another shape or type, an empty side or more than `MAX_PIXELS` a mask.
    """
    if not isinstance(masks, np.ndarray) or masks.ndim != 3 or masks.dtype != np.bool_:
        what = f"{masks.dtype} {masks.shape}" if isinstance(masks, np.ndarray) else type(masks)
        raise RleError(f"masks: expected a bool array of shape (M, H, W), got {what}")
    if len(masks) == 0:
        return []
    size_hw = _check_size(masks.shape[1:], MAX_PIXELS)
    n_pixels = size_hw[0] * size_hw[1]
    step = max(1, _CHUNK_PIXELS // n_pixels)
    return [
        Rle(size_hw, counts)
        for start in range(0, len(masks), step)
        for counts in _pack(*_mask_runs(masks[start : start + step]))
    ]


def decode(rle: Rle) -> Bools:
    """Decode to (H, W) bool, column-major in memory (rleDecode). Raises RleError as `runs`."""
    lengths = runs(rle)
    h, w = rle.size_hw
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(w, h).T


def runs(rle: Rle) -> Int64s:
    """Run lengths, column-major, background first. Raises RleError if they don't fill the mask."""
    return _check_runs(parse_counts(rle.counts), _check_size(rle.size_hw, MAX_PIXELS))


def from_runs(lengths: Sequence[int] | Int64s, size_hw: Sequence[int]) -> Rle:
    """Build an Rle from column-major run lengths, background first (rleToString).

    Runs of length zero are legal anywhere; the result has none but a leading one.

    Raises RleError if the lengths do not fill the mask.
    """
    size = _check_size(size_hw, MAX_PIXELS)
    canonical = _merge_empty(_check_runs(_as_runs(lengths), size))
    return Rle(size, compress_counts([canonical])[0])


def from_borders(borders: Int64s, n_borders: Int64s, size_hw: tuple[int, int]) -> list[Rle]:
    """Build the Rles of masks from where their runs end, column-major, background first.

    borders: those of all masks end to end, rising in each, the last one H * W; n_borders (M,): how
    many each mask has. Not checked: for encoders of ours.
    """
    lengths = np.diff(borders, prepend=0)
    firsts = np.cumsum(n_borders) - n_borders
    lengths[firsts] = borders[firsts]
    return [Rle(size_hw, counts) for counts in _pack(lengths, n_borders)]


def area(rle: Rle) -> int:
    """Count the foreground pixels (rleArea). Raises RleError as `runs`."""
    return int(runs(rle)[1::2].sum())


def covers(rle: Rle, x: int, y: int) -> bool:
    """Whether the mask has the pixel of column x, row y; nothing has those outside the image.

    Raises RleError as `runs`.
    """
    h, w = rle.size_hw
    if not (0 <= x < w and 0 <= y < h):
        return False
    run = np.searchsorted(np.cumsum(runs(rle)), x * h + y, side="right")
    return bool(run % 2)


def pixel_box_xywh(rle: Rle) -> tuple[float, float, float, float]:
    """Tight box whose w and h count pixels, as COCO's; all zero for an empty mask (rleToBbox).

    A run over more than one column takes the full height. `Mask.bbox_xywh` is another box: its w
    and h are last index less first, as in SAM's generator, and so one less.

    Raises RleError as `runs`.
    """
    lengths = runs(rle)
    h = rle.size_hw[0]
    ends = np.cumsum(lengths)[1::2]
    starts = ends - lengths[1::2]
    filled = starts < ends
    if not filled.any():
        return 0.0, 0.0, 0.0, 0.0
    x_first, y_first = np.divmod(starts[filled], h)
    x_last, y_last = np.divmod(ends[filled] - 1, h)
    x0, x1 = x_first[0], x_last[-1]
    y0, y1 = (0, h - 1) if (x_first < x_last).any() else (y_first.min(), y_last.max())
    return float(x0), float(y0), float(x1 - x0 + 1), float(y1 - y0 + 1)


def validate(
    counts: str | bytes | Sequence[int] | Int64s,
    size_hw: Sequence[int],
    max_pixels: int = MAX_PIXELS,
) -> Rle:
    """Make an Rle of foreign counts, compressed or a plain list of run lengths.

    The result is canonical and written by us: same mask, perhaps another string. Nothing is
    allocated at the size of the mask.

    Raises RleError that names the character or count at fault: sides not integers >= 1 or more
    than `max_pixels` together, a malformed string (see `parse_counts`), a negative count, counts
    that do not sum to H * W, or a difference that pycocotools misreads (see `compress_counts`).
    """
    size = _check_size(size_hw, min(max_pixels, MAX_PIXELS))
    return from_runs(parse_counts(counts) if isinstance(counts, str | bytes) else counts, size)


def to_coco(rle: Rle) -> dict[str, object]:
    """COCO's JSON form: {"size": [H, W], "counts": str}."""
    return {"size": list(rle.size_hw), "counts": rle.counts}


def from_coco(segmentation: Mapping[str, Any], max_pixels: int = MAX_PIXELS) -> Rle:
    """Read COCO's JSON form, compressed or not. Raises RleError as `validate` does."""
    if not isinstance(segmentation, Mapping):
        raise RleError(f"RLE: expected a mapping, got {type(segmentation).__name__}")
    missing = {"size", "counts"} - segmentation.keys()
    if missing:
        raise RleError(f"RLE: no {' and no '.join(sorted(missing))}")
    return validate(segmentation["counts"], segmentation["size"], max_pixels)


def compress_counts(batch: Sequence[Int64s]) -> list[str]:
    """Write arrays of run lengths as count strings, as they are (rleToString).

    Raises RleError for a length outside 0..2**31 - 1, or one that falls by more than 2**29 from
    the length two before: such a number takes seven characters, and pycocotools reads its sign
    wrong (rleFrString shifts a 32-bit -1 by 35).
    """
    if not batch:
        return []
    for lengths in batch:
        _check_range(lengths, MAX_PIXELS)
    return _pack(
        np.concatenate(batch, dtype=np.int64), np.array([len(lengths) for lengths in batch])
    )


def parse_counts(counts: str | bytes) -> Int64s:
    """Read a count string into run lengths (rleFrString); their meaning is not checked.

    Raises RleError for anything but str or bytes, a character outside 48..111, a number of more
    than 7 characters, or one that the string's end cuts off.
    """
    digits = _digits(counts)
    lasts = np.flatnonzero(digits < 32)
    n_chars = np.diff(lasts, prepend=-1)
    if digits.size and digits[-1] >= 32:
        raise RleError(f"counts: cut off after character {digits.size - 1}: more should follow")
    if n_chars.size and n_chars.max() > _MAX_CHARS:
        i = int(np.argmax(n_chars > _MAX_CHARS))
        raise RleError(
            f"counts: count {i}, from character {lasts[i] - n_chars[i] + 1} on, "
            f"has {n_chars[i]} characters, not at most {_MAX_CHARS}"
        )
    lengths = np.zeros(len(lasts), np.int64)
    for k in range(int(n_chars.max(initial=0))):  # k-th character from the end of each number
        longer = np.flatnonzero(n_chars > k)
        lengths[longer] = lengths[longer] << 5 | digits[lasts[longer] - k] & 31
    lengths -= np.where(digits[lasts] & 16, np.int64(1) << 5 * n_chars, 0)
    lengths[1::2] = np.cumsum(lengths[1::2])
    lengths[2::2] = np.cumsum(lengths[2::2])  # from 2: the third count is no difference
    return lengths


def _mask_runs(masks: Bools) -> tuple[Int64s, Int64s]:
    """Run lengths of (M, H, W) masks, all in one array, and how many each mask has."""
    m, h, w = masks.shape
    flips = np.empty(masks.shape, np.bool_)  # unlike the pixel before, going down the columns
    np.not_equal(masks[:, 1:], masks[:, :-1], out=flips[:, 1:])
    np.not_equal(masks[:, 0, 1:], masks[:, -1, :-1], out=flips[:, 0, 1:])
    flips[:, 0, 0] = masks[:, 0, 0]
    row_major = np.flatnonzero(flips)
    rows = row_major // w
    mask_index = rows // h
    columns = row_major - rows * w
    borders = mask_index * (h * w - h) + rows + columns * h
    ends = np.arange(1, m + 1) * (h * w)
    # A mask's end is the next one's zero, so one difference serves all.
    borders = np.sort(np.concatenate([borders, ends]))
    return np.diff(borders, prepend=0), np.bincount(mask_index, minlength=m) + 1


def _pack(lengths: Int64s, n_runs: Int64s) -> list[str]:
    """Count strings of run lengths laid end to end, `n_runs` for each string."""
    stops = np.cumsum(n_runs)
    deltas = lengths.copy()
    deltas[2:] -= lengths[:-2]
    for k in range(3):  # the first three counts of a string are written whole
        whole = (stops - n_runs + k)[n_runs > k]
        deltas[whole] = lengths[whole]
    if deltas.size and deltas.min() < -_LIMITS[-1]:
        i = int(deltas.argmin())
        raise RleError(f"counts: {lengths[i]} two after {lengths[i - 2]} falls by over 2**29")
    n_chars = np.searchsorted(_LIMITS, deltas ^ (deltas >> 63), side="right") + 1
    ends = np.cumsum(n_chars)
    text = np.empty(int(n_chars.sum()), np.uint8)
    at = ends - n_chars
    for k in range(1, _MAX_CHARS + 1):
        more = n_chars > k
        text[at] = (deltas & 31) + np.where(more, 80, 48)
        at, deltas, n_chars = at[more] + 1, deltas[more] >> 5, n_chars[more]
    cuts = np.concatenate([[0], ends])[np.concatenate([[0], stops])].tolist()
    string = text.tobytes().decode("ascii")
    return [string[a:b] for a, b in pairwise(cuts)]


def _merge_empty(lengths: Int64s) -> Int64s:
    """Describe the same mask without empty runs, but for a leading one if the first pixel is on."""
    if (lengths[1:] > 0).all():
        return lengths
    kept = np.flatnonzero(lengths)
    is_on = kept % 2
    heads = np.flatnonzero(np.diff(is_on, prepend=-1))
    merged = np.add.reduceat(lengths[kept], heads)
    return np.concatenate([[0], merged]) if is_on[0] else merged


def _digits(counts: str | bytes) -> npt.NDArray[np.uint8]:
    """Characters of a count string as numbers 0..63."""
    if not isinstance(counts, str | bytes):
        raise RleError(f"counts: expected str or bytes, got {type(counts).__name__}")
    try:
        raw = counts.encode("ascii") if isinstance(counts, str) else counts
    except UnicodeEncodeError as error:
        raise RleError(f"counts: character {error.start} is not ASCII") from None
    digits = np.frombuffer(raw, np.uint8) - np.uint8(48)  # wraps below 48, out of range too
    if digits.size and digits.max() > 63:
        i = int(np.argmax(digits > 63))
        raise RleError(f"counts: character {i} is {raw[i : i + 1]!r}, not one of '0'..'o'")
    return digits


def _as_runs(lengths: Sequence[int] | Int64s) -> npt.NDArray[np.integer]:
    if not isinstance(lengths, list | tuple | np.ndarray):
        raise RleError(f"counts: expected str, bytes or a list, got {type(lengths).__name__}")
    try:
        values = np.asarray(lengths)
    except (ValueError, TypeError, OverflowError) as error:
        raise RleError(f"counts: not a list of integers: {error}") from None
    if values.ndim != 1 or (values.size and values.dtype.kind not in "iu"):
        raise RleError(
            f"counts: expected a flat list of integers of at most 63 bits, got {values.dtype} "
            f"{values.shape}"
        )
    return values if values.size else np.zeros(0, np.int64)


def _check_range(values: npt.NDArray[np.integer], most: int) -> None:
    if values.size and (values.min() < 0 or values.max() > most):
        i = int(np.argmax((values < 0) | (values > most)))
        raise RleError(f"counts: count {i} is {values[i]}, not in 0..{most}")


def _check_runs(values: npt.NDArray[np.integer], size_hw: tuple[int, int]) -> Int64s:
    """`values` as int64, if they are run lengths that fill the mask."""
    n_pixels = size_hw[0] * size_hw[1]
    _check_range(values, n_pixels)
    total = int(values.sum(dtype=np.int64))
    if total != n_pixels:
        raise RleError(f"counts: sum is {total}, not H * W = {size_hw[0]} * {size_hw[1]}")
    return values.astype(np.int64, copy=False)


def _check_size(size_hw: Sequence[int], max_pixels: int) -> tuple[int, int]:
    try:
        if any(isinstance(side, bool) for side in size_hw):
            raise TypeError("a bool is no size")
        h, w = (operator.index(side) for side in size_hw)
    except (TypeError, ValueError) as error:
        raise RleError(f"size: expected two integers (H, W): {error}") from None
    if not (0 < h <= MAX_PIXELS and 0 < w <= MAX_PIXELS):
        # In hexadecimal, because Python refuses to print huge integers in decimal.
        raise RleError(f"size: {h:#x} * {w:#x}, but both sides must be 1..{MAX_PIXELS}")
    if h * w > max_pixels:
        raise RleError(f"size: {h} * {w} pixels are more than {max_pixels}")
    return h, w
