"""Low-res logits of masks that wait to be encoded, without those that no pixel can depend on.

A full-size pixel is a weighted mean of 3 x 3 low-res logits (`ops.resample`). Where all nine lie on
one side of the threshold so does the pixel, whatever their values: only logits along the outlines
are kept, some hundredth to tenth of them, and of the others a bit that says on which side they lie.
`full_size_numba.encode_masks` gives the same run lengths for what comes back, to the bit.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from amg.ops.compiled import compiled
from amg.ops.resample import TAPS
from amg.ops.threads import map_parts

Bits = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class OutlineLogits:
    """What is kept of logits (M, h, w): which are above, packed, and a mask's `values` along it."""

    size_hw: tuple[int, int]
    above: Bits
    values: tuple[Floats, ...]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def nbytes(self) -> int:
        """Of all that is kept."""
        return self.above.nbytes + sum(values.nbytes for values in self.values)

    def __getitem__(self, index: torch.Tensor) -> torch.Tensor:
        """Logits (K, h, w) of an index (K,): infinite off the outlines."""
        height, width = self.size_hw
        rows = index.tolist()
        above = np.unpackbits(self.above[rows], axis=1, count=height * width)
        above = above.reshape(-1, height, width)
        logits = np.where(above, np.float32(np.inf), np.float32(-np.inf))
        for place, row in enumerate(rows):
            logits[place][_near_outline(above[place]).view(bool)] = self.values[row]
        return torch.from_numpy(logits)


def keep_outline_logits(logits: torch.Tensor, threshold: float) -> OutlineLogits:
    """Keep what the masks (M, h, w) float32 above a threshold need; on a CPU."""
    numbers = logits.numpy()
    n_masks, height, width = numbers.shape
    above = (numbers > np.float32(threshold)).view(np.uint8)
    parts = map_parts(lambda part: _pick(numbers, above, part), np.arange(n_masks))
    return OutlineLogits(
        size_hw=(height, width),
        above=np.packbits(above.reshape(n_masks, height * width), axis=1),
        values=tuple(values for part in parts for values in part),
    )


def _pick(logits: Floats, above: Bits, part: npt.NDArray[np.int64]) -> list[Floats]:
    return [logits[i][_near_outline(above[i]).view(bool)] for i in part.tolist()]


@compiled
def _near_outline(above: Bits) -> Bits:
    """Which logits (h, w) are in a window of 3 x 3 that has some above the threshold, not all.

    Each loop is over bytes side by side, so that they are taken many at a time.
    """
    height, width = above.shape
    # Of windows by their first row and column, with two columns more on the left.
    mixed = np.zeros((height, width + 2), np.uint8)
    in_columns = np.empty(width, np.uint8)
    for y in range(height - 2):
        first, second, third = above[y], above[y + 1], above[y + 2]
        for x in range(width):
            in_columns[x] = first[x] + second[x] + third[x]
        row = mixed[y]
        for x in range(width - 2):
            n_above = np.uint8(in_columns[x] + in_columns[x + 1] + in_columns[x + 2])
            row[x + 2] = (n_above != 0) & (n_above != 9)
        for x in range(width):
            row[x] = row[x] | row[x + 1] | row[x + 2]
    near = np.empty((height, width), np.uint8)
    for y in range(height):
        first, second, third = mixed[max(y - 2, 0)], mixed[max(y - 1, 0)], mixed[y]
        row = near[y]
        for x in range(width):
            row[x] = first[x] | second[x] | third[x]
    return near


assert TAPS == 3  # the kernels are written out for it
