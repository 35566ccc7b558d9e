"""Full-size masks from low-res logits on a GPU, without full-size arrays: measured, and encoded.

The twin of `full_size_numba`. A program computes a tile of one mask's pixels, unless the low-res
logits that the tile depends on all lie on one side of the threshold: then so do its pixels. What is
stored is six integers a mask; or, of masks that are encoded, a bit a pixel.

The box measured must be the box of what is encoded. So both kernels have their pixels from the same
function, `_words`, made of operations that are each rounded on their own. Left to itself, the
compiler contracts products and sums into one rounding, or does not, by the code around them:
`_LAUNCH` forbids it. What is encoded is then what `full_size_numba` encodes, bit for bit.

To import this needs triton, which torch brings along on Linux only.
"""

from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import triton
import triton.language as tl

from amg.ops import full_size_numba, rle
from amg.ops.borders import WORD_BITS, borders_of_words
from amg.ops.resample import TAPS, Resampling, bilinear_taps
from amg.ops.threads import map_parts
from amg.records import Rle

_LAUNCH = {"num_warps": 4, "enable_fp_fusion": False}  # a thread for each of the tile's columns
_MOST_PROGRAMS = 2**31 - 1  # of one launch
_MOST_WORDS = 16 * 1024 * 1024  # that exist at once: 64 MiB, or one mask's if that is more

# A tile of pixels: a word of bits for each of its columns.
_ROWS = tl.constexpr(WORD_BITS)
_COLUMNS = tl.constexpr(128)
# In tiles of these a program looks over the low-res logits that it depends on.
_LOW_ROWS = tl.constexpr(16)
_LOW_COLUMNS = tl.constexpr(32)
_NAN_WINS = tl.constexpr(tl.PropagateNan.ALL)
_NOWHERE = tl.constexpr(2**31 - 1)  # a first index beyond any pixel's
# Sizes differ from image to image: a kernel for all, not one for each kind of number.
_SIZES = ["low_height", "low_width", "height", "width", "n_words"]


def try_kernels(device: torch.device) -> None:
    """Raise whatever keeps these kernels from running there, or from drawing a toy as the CPU does.

    A kernel may be the first that a driver, a compiler or a device refuses: here nothing is lost.
    """
    side, size = 6, (WORD_BITS + 5, 23)
    resampling = Resampling(*(bilinear_taps(side, 2 * side, 2 * side, n) for n in size))
    logits = torch.linspace(-2, 2, side * side).roll(side // 2).view(1, side, side)
    toy = logits.to(device)
    stability, boxes_xyxy = measure_masks(toy, resampling, 0.0, 1.0)
    expected_stability, expected_boxes = full_size_numba.measure_masks(logits, resampling, 0.0, 1.0)
    encoded = encode_masks(toy, resampling, 0.0, (0, 0), size)
    if not (
        torch.allclose(stability.cpu(), expected_stability)
        and torch.equal(boxes_xyxy.cpu(), expected_boxes)
        and encoded == full_size_numba.encode_masks(logits, resampling, 0.0, (0, 0), size)
    ):
        raise RuntimeError("its kernels draw other masks than the CPU")


def measure_masks(
    logits: torch.Tensor, resampling: Resampling, threshold: float, offset: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Stability (M,) float32 and box (M, 4) int64 XYXY of low-res logits (M, h, w).

    As `full_size_numba.measure_masks`; in float32, whatever floats the logits are.
    """
    taps = _upload(resampling, logits.device)
    levels = threshold + offset, threshold, threshold - offset
    empty = [0, 0, _NOWHERE.value, _NOWHERE.value, -1, -1]
    found = torch.tensor(empty, dtype=torch.int32, device=logits.device).repeat(len(logits), 1)
    n_at_once = _MOST_PROGRAMS // _n_tiles(resampling)
    for part, part_found in zip(logits.split(n_at_once), found.split(n_at_once), strict=True):
        _launch(_measure, part, resampling, *taps, *levels, part_found)
    return found[:, 0] / found[:, 1], found[:, 2:].long() * (found[:, 4:5] >= 0)


def encode_masks(
    logits: torch.Tensor,
    resampling: Resampling,
    threshold: float,
    origin_xy: tuple[int, int],
    image_hw: tuple[int, int],
) -> list[Rle]:
    """Run lengths of low-res logits (M, h, w) above a threshold, in a crop of an image.

    As `full_size_numba.encode_masks`: the device packs the pixels into bits, the host finds their
    runs.
    """
    taps = _upload(resampling, logits.device)
    height, width = resampling.rows.size, resampling.columns.size
    n_words = triton.cdiv(height, WORD_BITS)
    place = height, *origin_xy, image_hw[0], image_hw[0] * image_hw[1]

    def encode(words: npt.NDArray[np.uint32]) -> list[Rle]:
        borders, n_borders = borders_of_words(words, *place)
        return rle.from_borders(borders, n_borders, image_hw)

    encoded: list[Rle] = []
    for part in logits.split(max(1, _MOST_WORDS // (width * n_words))):
        words = part.new_empty((len(part), width, n_words), dtype=torch.int32)
        _launch(_pack, part, resampling, *taps, threshold, words, n_words)
        encoded += chain.from_iterable(map_parts(encode, _download(words)))
    return encoded


def _upload(resampling: Resampling, device: torch.device) -> list[torch.Tensor]:
    """Starts and weights of the rows, then of the columns."""
    return [
        torch.from_numpy(array).to(device)
        for axis in (resampling.rows, resampling.columns)
        for array in (axis.starts.astype(np.int32), axis.weights)
    ]


def _download(words: torch.Tensor) -> npt.NDArray[np.uint32]:
    host = torch.empty_like(words, device="cpu", pin_memory=words.is_cuda)
    return host.copy_(words).numpy().view(np.uint32)


def _n_tiles(resampling: Resampling) -> int:
    n_down = triton.cdiv(resampling.rows.size, _ROWS.value)
    return n_down * triton.cdiv(resampling.columns.size, _COLUMNS.value)


def _launch(
    kernel: Any, logits: torch.Tensor, resampling: Resampling, *arguments: torch.Tensor | float
) -> None:
    """Run a program for each tile of each mask."""
    grid = (len(logits) * _n_tiles(resampling),)
    sizes = *logits.shape[1:], resampling.rows.size, resampling.columns.size
    if grid[0]:
        with torch.cuda.device_of(logits):  # the current one is where triton launches
            kernel[grid](logits.contiguous(), *sizes, *arguments, **_LAUNCH)


@triton.jit(do_not_specialize=_SIZES)
def _measure(
    logits: tl.tensor,
    low_height: int,
    low_width: int,
    height: int,
    width: int,
    row_starts: tl.tensor,
    row_weights: tl.tensor,
    column_starts: tl.tensor,
    column_weights: tl.tensor,
    high: float,
    middle: float,
    low: float,
    found: tl.tensor,
) -> None:
    """Join a tile to what is found of its mask, a row of (M, 6) int32.

    That is: areas above `high` and `low`; first x and y, last x and y, above `middle`.
    """
    m, y, x = _place(height, width)
    rows, columns = (row_starts, row_weights, y, height), (column_starts, column_weights, x, width)
    mask = logits + m * low_height * low_width
    above_high, above, above_low = _words(mask, low_width, rows, columns, high, middle, low)
    n_low = _n_bits(above_low)
    if n_low > 0:
        of_mask = found + m * 6
        tl.atomic_add(of_mask, _n_bits(above_high), sem="relaxed")
        tl.atomic_add(of_mask + 1, n_low, sem="relaxed")
        _join_range(of_mask + 2, x + tl.arange(0, _COLUMNS), above != 0)
        in_row = tl.reduce(above, 0, _either) >> tl.arange(0, _ROWS)
        _join_range(of_mask + 3, y + tl.arange(0, _ROWS), (in_row & 1) != 0)


@triton.jit(do_not_specialize=_SIZES)
def _pack(
    logits: tl.tensor,
    low_height: int,
    low_width: int,
    height: int,
    width: int,
    row_starts: tl.tensor,
    row_weights: tl.tensor,
    column_starts: tl.tensor,
    column_weights: tl.tensor,
    threshold: float,
    words: tl.tensor,
    n_words: int,
) -> None:
    """Write which of a tile's pixels are above `threshold` to words (M, W, n_words) int32."""
    m, y, x = _place(height, width)
    rows, columns = (row_starts, row_weights, y, height), (column_starts, column_weights, x, width)
    mask = logits + m * low_height * low_width
    above, _, _ = _words(mask, low_width, rows, columns, threshold, threshold, threshold)
    xs = x + tl.arange(0, _COLUMNS)
    at = words + m * width * n_words + xs * n_words + y // _ROWS
    tl.store(at, above.to(tl.int32, bitcast=True), mask=xs < width)


# Below, "tuple" is in quotes because triton knows few names of parameters' types.


@triton.jit
def _place(height: int, width: int) -> tuple:
    """The mask of this program, and the first y and x of its tile."""
    n_across = tl.cdiv(width, _COLUMNS)
    n_tiles = tl.cdiv(height, _ROWS) * n_across
    program = tl.program_id(0)
    tile = program % n_tiles
    m = (program // n_tiles).to(tl.int64)  # all masks together may have over 2**31 values
    return m, tile // n_across * _ROWS, tile % n_across * _COLUMNS


@triton.jit
def _words(
    mask: tl.tensor,
    low_width: int,
    rows: "tuple",
    columns: "tuple",
    high: float,
    middle: float,
    low: float,
) -> tuple:
    """Which of a tile's pixels are above each threshold: one word a column, (_COLUMNS,) uint32.

    The first row's pixel is the lowest bit; pixels outside the crop are 0. `rows` and `columns` are
    an axis each: starts and weights of all outputs, the tile's first output, how many there are.
    """
    inside = _inside(rows, columns)
    least, most = _extremes(mask, low_width, rows, columns)
    is_mixed = ((least <= low) & (most > low)) | ((least <= middle) & (most > middle))
    if is_mixed | ((least <= high) & (most > high)):
        a, b, c = _compare(mask, low_width, rows, columns, high, middle, low)
        return a & inside, b & inside, c & inside
    return (
        tl.where(least > high, inside, 0),
        tl.where(least > middle, inside, 0),
        tl.where(least > low, inside, 0),
    )


@triton.jit
def _inside(rows: "tuple", columns: "tuple") -> tl.tensor:
    """Which of a tile's pixels the crop has, as `_words`."""
    _, _, y, height = rows
    _, _, x, width = columns
    n_rows = tl.minimum(height - y, _ROWS)
    column = tl.full((_COLUMNS,), 0xFFFFFFFF, tl.uint32) >> (_ROWS - n_rows)
    return tl.where(x + tl.arange(0, _COLUMNS) < width, column, 0)


@triton.jit
def _extremes(mask: tl.tensor, low_width: int, rows: "tuple", columns: "tuple") -> tuple:
    """The least and the largest of the low-res logits that a tile depends on.

    With a NaN among them these are infinite: its pixels have to be computed one by one.
    """
    top, bottom = _span(rows, _ROWS)
    left, right = _span(columns, _COLUMNS)
    place = tl.arange(0, _LOW_ROWS * _LOW_COLUMNS)
    least = tl.full((_LOW_ROWS * _LOW_COLUMNS,), float("inf"), tl.float32)
    most = tl.full((_LOW_ROWS * _LOW_COLUMNS,), float("-inf"), tl.float32)
    low_y = top
    while low_y < bottom:
        low_ys = tl.minimum(low_y + place // _LOW_COLUMNS, bottom - 1)
        low_x = left
        while low_x < right:
            low_xs = tl.minimum(low_x + place % _LOW_COLUMNS, right - 1)
            found = tl.load(mask + low_ys * low_width + low_xs).to(tl.float32)
            is_number = found == found  # noqa: PLR0124
            least = tl.minimum(least, tl.where(is_number, found, float("-inf")))
            most = tl.maximum(most, tl.where(is_number, found, float("inf")))
            low_x += _LOW_COLUMNS
        low_y += _LOW_ROWS
    return tl.min(least, 0), tl.max(most, 0)


@triton.jit
def _span(axis: "tuple", n_outputs: tl.constexpr) -> tuple:
    """From where to where a tile of so many outputs has its taps along an axis."""
    starts, _, first, size = axis
    last = tl.minimum(first + n_outputs, size) - 1
    return tl.load(starts + first), tl.load(starts + last) + 3


@triton.jit
def _compare(
    mask: tl.tensor,
    low_width: int,
    rows: "tuple",
    columns: "tuple",
    high: float,
    middle: float,
    low: float,
) -> tuple:
    """As `_words`, pixel by pixel, going down the columns; anything in pixels outside the crop.

    Rounding may put a mean beyond all that it is a mean of. Here it is kept within: where a pixel's
    9 taps agree so does the pixel, as if its tile had been skipped. A pixel with a NaN among its
    taps is NaN, and above no threshold.
    """
    row_starts, row_weights, y, height = rows
    column_starts, column_weights, x, width = columns
    column = tl.minimum(x + tl.arange(0, _COLUMNS), width - 1)
    left = tl.load(column_starts + column)
    across = column_weights + column * 3
    u, v, w = tl.load(across), tl.load(across + 1), tl.load(across + 2)
    above_high = tl.zeros((_COLUMNS,), tl.uint32)
    above = tl.zeros((_COLUMNS,), tl.uint32)
    above_low = tl.zeros((_COLUMNS,), tl.uint32)
    top = tl.load(row_starts + y)
    a, b, c, least, most = _across(mask + top * low_width + left, low_width, u, v, w)
    for i in range(_ROWS):
        row = tl.minimum(y + i, height - 1)
        if tl.load(row_starts + row) != top:
            top = tl.load(row_starts + row)
            a, b, c, least, most = _across(mask + top * low_width + left, low_width, u, v, w)
        down = row_weights + row * 3
        value = tl.load(down) * a + tl.load(down + 1) * b + tl.load(down + 2) * c
        value = tl.where(value == value, value, float("-inf"))  # noqa: PLR0124 - 0 times infinity
        value = tl.maximum(tl.minimum(value, most, _NAN_WINS), least, _NAN_WINS)
        above_high |= (value > high).to(tl.uint32) << i
        above |= (value > middle).to(tl.uint32) << i
        above_low |= (value > low).to(tl.uint32) << i
    return above_high, above, above_low


@triton.jit
def _across(at: tl.tensor, low_width: int, u: tl.tensor, v: tl.tensor, w: tl.tensor) -> tuple:
    """Three low-res rows' values at columns whose 3 x 3 taps begin at `at`; the taps' range."""
    a, least_a, most_a = _row(at, u, v, w)
    b, least_b, most_b = _row(at + low_width, u, v, w)
    c, least_c, most_c = _row(at + 2 * low_width, u, v, w)
    least = tl.minimum(tl.minimum(least_a, least_b, _NAN_WINS), least_c, _NAN_WINS)
    most = tl.maximum(tl.maximum(most_a, most_b, _NAN_WINS), most_c, _NAN_WINS)
    return a, b, c, least, most


@triton.jit
def _row(at: tl.tensor, u: tl.tensor, v: tl.tensor, w: tl.tensor) -> tuple:
    """One low-res row's value at each column, and its taps' range."""
    a = tl.load(at).to(tl.float32)
    b = tl.load(at + 1).to(tl.float32)
    c = tl.load(at + 2).to(tl.float32)
    least = tl.minimum(tl.minimum(a, b, _NAN_WINS), c, _NAN_WINS)
    most = tl.maximum(tl.maximum(a, b, _NAN_WINS), c, _NAN_WINS)
    return u * a + v * b + w * c, least, most


@triton.jit
def _n_bits(words: tl.tensor) -> Any:
    """How many bits of uint32 are set: counted in twos, fours, eights, and added up."""
    twos = words - ((words >> 1) & 0x55555555)
    fours = (twos & 0x33333333) + ((twos >> 2) & 0x33333333)
    eights = (fours + (fours >> 4)) & 0x0F0F0F0F
    sums = (eights * 0x01010101) >> 24
    return tl.sum(sums.to(tl.int32), 0)


@triton.jit
def _either(a: tl.tensor, b: tl.tensor) -> tl.tensor:
    return a | b


@triton.jit
def _join_range(first: tl.tensor, places: tl.tensor, is_hit: tl.tensor) -> None:
    """Join a tile's hits along an axis to the first and the last of its mask's, 2 further on."""
    tl.atomic_min(first, tl.min(tl.where(is_hit, places, _NOWHERE), 0), sem="relaxed")
    tl.atomic_max(first + 2, tl.max(tl.where(is_hit, places, -1), 0), sem="relaxed")


assert TAPS == 3  # the kernels are written out for it
