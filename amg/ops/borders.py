"""Where the runs of masks end, column-major: collected by compiled code, and read from bits."""

import numpy as np
import numpy.typing as npt

from amg.ops.compiled import compiled

FIRST_CAPACITY = 4096
WORD_BITS = 32

Int64s = npt.NDArray[np.int64]

# The place of a number's only bit: its product with this one has other top five bits for each.
_DE_BRUIJN = 0x077CB531
_ALL_BITS = 0xFFFFFFFF
_PLACES = np.argsort([(_DE_BRUIJN << place & _ALL_BITS) >> 27 for place in range(WORD_BITS)])


@compiled
def with_room(borders: Int64s, end: int, n_more: int) -> Int64s:
    """The array, or a larger one with the same first `end` values."""
    if end + n_more <= len(borders):
        return borders
    grown = np.empty(2 * len(borders) + n_more, np.int64)
    grown[:end] = borders[:end]
    return grown


@compiled
def put_border(borders: Int64s, begin: int, end: int, border: int) -> int:
    """Add a border and give the new end; a run that goes on in the next column has none there."""
    if end > begin and borders[end - 1] == border:
        return end - 1
    borders[end] = border
    return end + 1


@compiled
def close_mask(borders: Int64s, begin: int, end: int, n_image_pixels: int) -> tuple[Int64s, int]:
    """End a mask's last run with the image; the array, perhaps a larger one, and the new end."""
    if end == begin or borders[end - 1] != n_image_pixels:
        borders = with_room(borders, end, 1)
        borders[end] = n_image_pixels
        end += 1
    return borders, end


@compiled
def borders_of_words(
    words: npt.NDArray[np.uint32],
    height: int,
    origin_x: int,
    origin_y: int,
    image_height: int,
    n_image_pixels: int,
) -> tuple[Int64s, Int64s]:
    """Where the runs end of masks in a crop, column-major in the image, and how many each mask has.

    words (M, W, ceil(height / 32)): each column's pixels from the top down, in a word from its
    lowest bit up; those below the crop are 0. The last run of each mask ends with the image.
    """
    n_masks, width, n_words = words.shape
    borders = np.empty(FIRST_CAPACITY, np.int64)
    counts = np.empty(n_masks, np.int64)
    end = 0
    for m in range(n_masks):
        begin = end
        for x in range(width):
            borders = with_room(borders, end, height + 2)
            base = (x + origin_x) * image_height + origin_y
            last = 0
            for k in range(n_words):
                word = np.int64(words[m, x, k])
                changes = (word ^ (word << 1 | last)) & _ALL_BITS
                last = word >> (WORD_BITS - 1)
                while changes:
                    lowest = changes & -changes
                    place = _PLACES[(lowest * _DE_BRUIJN & _ALL_BITS) >> 27]
                    end = put_border(borders, begin, end, base + k * WORD_BITS + place)
                    changes ^= lowest
            if last:
                end = put_border(borders, begin, end, base + height)
        borders, end = close_mask(borders, begin, end, n_image_pixels)
        counts[m] = end - begin
    return borders[:end], counts
