"""Masks in the run-length code of Label Studio's brush.

Label Studio packs the RGBA pixels of a canvas, row by row, with `@thi.ng/rle-pack`: a stream of
bits, high bits first. It starts with the number of values (32 bits), the bits of a value less one
(5) and four sizes of run lengths less one (4 each). Then come runs: 1, which of the four sizes (2),
the length less one, and the value, once for all. All four channels of a pixel have the same value
here, 255 or 0.
"""

import numpy as np
import numpy.typing as npt

from amg.ops import rle
from amg.records import Rle

_CHANNELS = 4
_VALUE_BITS = 8
_SIZES = np.array([3, 4, 8, 16])
_MOST = 1 << int(_SIZES[-1])

Int64s = npt.NDArray[np.int64]


def encode(mask: Rle) -> bytes:
    """Pack a mask. Raises RleError as `rle.decode`."""
    pixels = rle.decode(mask).ravel()  # row by row
    ends = np.append(np.flatnonzero(pixels[1:] != pixels[:-1]) + 1, pixels.size)
    lengths = np.diff(ends, prepend=0) * _CHANNELS
    values = np.where(pixels[ends - 1], 255, 0)
    lengths, values = _split(lengths, values)
    which = np.searchsorted(1 << _SIZES, lengths)
    # One number for each run: its flag, which size, its length and its value.
    codes = 1 << 2 | which
    codes = (codes << _SIZES[which] | lengths - 1) << _VALUE_BITS | values
    header = [pixels.size * _CHANNELS, _VALUE_BITS - 1, *(_SIZES - 1)]
    n_bits = np.concatenate([[32, 5, 4, 4, 4, 4], 3 + _SIZES[which] + _VALUE_BITS])
    return _pack(np.concatenate([header, codes]), n_bits)


def _split(lengths: Int64s, values: Int64s) -> tuple[Int64s, Int64s]:
    """Cut runs that are longer than the code can say."""
    n_pieces = -(-lengths // _MOST)
    pieces = np.full(int(n_pieces.sum()), _MOST)
    pieces[np.cumsum(n_pieces) - 1] = lengths - (n_pieces - 1) * _MOST
    return pieces, np.repeat(values, n_pieces)


def _pack(numbers: Int64s, n_bits: Int64s) -> bytes:
    """Numbers of so many bits each, end to end, and zeros to the end of the byte."""
    ends = np.cumsum(n_bits)
    places = np.repeat(ends, n_bits) - 1 - np.arange(ends[-1])  # of each bit, from its lowest
    bits = np.repeat(numbers, n_bits) >> places & 1
    return np.packbits(bits.astype(np.uint8)).tobytes()
