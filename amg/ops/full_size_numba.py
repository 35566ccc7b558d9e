"""Full-size masks from low-res logits on a CPU, without full-size arrays: measured, and encoded.

In one pass what upsampling, `full_size_plain` and `rle.encode_masks` do step by step; the twin of
`full_size_triton`. A full-size logit is a weighted mean of 3 x 3 low-res ones. Where these nine all
lie on one side of a threshold so does every pixel that they give: only blocks of pixels along the
outlines are computed. Memory beside the result is a few low-res columns.
"""

import numpy as np
import numpy.typing as npt
import torch

from amg.ops import rle
from amg.ops.borders import FIRST_CAPACITY, Int64s, close_mask, put_border, with_room
from amg.ops.compiled import compiled
from amg.ops.resample import TAPS, AxisTaps, Resampling
from amg.ops.threads import map_parts
from amg.records import Rle

_OFF, _ON, _MIXED = 0, 1, 2

Axis = tuple[Int64s, Int64s, npt.NDArray[np.float32]]
"""Of an axis: the blocks' starts among the low-res values, their edges, each output's weights."""


def measure_masks(
    logits: torch.Tensor, resampling: Resampling, threshold: float, offset: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Stability (M,) float32 and box (M, 4) int64 XYXY of low-res logits (M, h, w) float32.

    What `stability_score` and `mask_boxes` give for the full-size logits, but for pixels that
    rounding puts on the other side of a threshold.
    """
    axes = _axes(resampling)
    levels = np.float32(threshold + offset), np.float32(threshold), np.float32(threshold - offset)
    parts = map_parts(lambda part: _measure(part, *axes, *levels), logits.contiguous().numpy())
    areas, boxes = (torch.from_numpy(np.concatenate([part[i] for part in parts])) for i in range(2))
    return areas[:, 0] / areas[:, 1], boxes


def encode_masks(
    logits: torch.Tensor,
    resampling: Resampling,
    threshold: float,
    origin_xy: tuple[int, int],
    image_hw: tuple[int, int],
) -> list[Rle]:
    """Run lengths of low-res logits (M, h, w) float32 above a threshold, in a crop of an image.

    The crop has `resampling`'s size and lies at `origin_xy` in an image of `image_hw`.
    """
    axes = _axes(resampling)
    level, place = np.float32(threshold), (*origin_xy, image_hw[0], image_hw[0] * image_hw[1])
    parts = map_parts(
        lambda part: _borders(part, *axes, level, *place), logits.contiguous().numpy()
    )
    return [
        encoded
        for borders, counts in parts
        for encoded in rle.from_borders(borders, counts, image_hw)
    ]


def _axes(resampling: Resampling) -> tuple[Axis, Axis]:
    def arrays(axis: AxisTaps) -> Axis:
        return axis.starts[axis.edges[:-1]], axis.edges, axis.weights

    return arrays(resampling.rows), arrays(resampling.columns)


@compiled
def _measure(
    logits: npt.NDArray[np.float32],
    rows: Axis,
    columns: Axis,
    high: np.float32,
    middle: np.float32,
    low: np.float32,
) -> tuple[npt.NDArray[np.int32], Int64s]:
    """Areas above `high` and `low` (M, 2), and boxes of what is above `middle` (M, 4)."""
    row_starts, row_edges, row_weights = rows
    column_starts, column_edges, column_weights = columns
    n_masks, n_low, _ = logits.shape
    areas = np.zeros((n_masks, 2), np.int32)
    boxes = np.zeros((n_masks, 4), np.int64)
    least, most = np.empty(n_low, np.float32), np.empty(n_low, np.float32)
    mixed = np.empty(len(row_starts), np.int64)
    for m in range(n_masks):
        mask = logits[m]
        area_high = area_low = 0
        x0, y0, x1, y1 = column_edges[-1], row_edges[-1], -1, -1
        for bx in range(len(column_starts)):
            left = column_starts[bx]
            _extremes(mask, left, least, most)
            first_x, end_x = column_edges[bx], column_edges[bx + 1]
            n_mixed = 0
            for by in range(len(row_starts)):
                top = row_starts[by]
                least_of_9 = min(least[top], least[top + 1], least[top + 2])
                most_of_9 = max(most[top], most[top + 1], most[top + 2])
                if most_of_9 <= low:
                    continue
                is_on = least_of_9 > middle
                if not (
                    least_of_9 > high
                    or (most_of_9 <= high and least_of_9 > low and (is_on or most_of_9 <= middle))
                ):
                    mixed[n_mixed] = by
                    n_mixed += 1
                    continue
                first_y, end_y = row_edges[by], row_edges[by + 1]
                n_pixels = (end_x - first_x) * (end_y - first_y)
                area_low += n_pixels
                if least_of_9 > high:
                    area_high += n_pixels
                if is_on:
                    x0, x1 = min(x0, first_x), max(x1, end_x - 1)
                    y0, y1 = min(y0, first_y), max(y1, end_y - 1)
            for x in range(first_x, end_x if n_mixed else first_x):
                weights = column_weights[x]
                for k in range(n_mixed):
                    by = mixed[k]
                    a, b, c = _column_values(mask, row_starts[by], left, weights)
                    for y in range(row_edges[by], row_edges[by + 1]):
                        value = _value(row_weights, y, a, b, c)
                        area_high += value > high
                        area_low += value > low
                        if value > middle:
                            x0, x1 = min(x0, x), max(x1, x)
                            y0, y1 = min(y0, y), max(y1, y)
        areas[m, 0], areas[m, 1] = area_high, area_low
        if x1 >= 0:
            boxes[m, 0], boxes[m, 1], boxes[m, 2], boxes[m, 3] = x0, y0, x1, y1
    return areas, boxes


@compiled
def _borders(
    logits: npt.NDArray[np.float32],
    rows: Axis,
    columns: Axis,
    threshold: np.float32,
    origin_x: int,
    origin_y: int,
    image_height: int,
    n_image_pixels: int,
) -> tuple[Int64s, Int64s]:
    """Where the masks' runs end, column-major in the image, and how many of them each mask has.

    The last run of each mask ends with the image.
    """
    row_starts, row_edges, row_weights = rows
    column_starts, column_edges, column_weights = columns
    n_masks, n_low, _ = logits.shape
    least, most = np.empty(n_low, np.float32), np.empty(n_low, np.float32)
    blocks = np.empty(len(row_starts), np.int64)
    kinds = np.empty(len(row_starts), np.int64)
    borders = np.empty(FIRST_CAPACITY, np.int64)
    counts = np.empty(n_masks, np.int64)
    end = 0
    for m in range(n_masks):
        mask = logits[m]
        begin = end
        for bx in range(len(column_starts)):
            left = column_starts[bx]
            _extremes(mask, left, least, most)
            n_blocks = _find_changes(row_starts, least, most, threshold, blocks, kinds)
            for x in range(column_edges[bx], column_edges[bx + 1] if n_blocks else 0):
                weights = column_weights[x]
                base = (x + origin_x) * image_height + origin_y
                borders = with_room(borders, end, row_edges[-1] + 2)
                is_on = False
                for k in range(n_blocks):
                    by = blocks[k]
                    if kinds[k] != _MIXED:
                        if is_on != (kinds[k] == _ON):
                            is_on = not is_on
                            end = put_border(borders, begin, end, base + row_edges[by])
                        continue
                    a, b, c = _column_values(mask, row_starts[by], left, weights)
                    for y in range(row_edges[by], row_edges[by + 1]):
                        value = _value(row_weights, y, a, b, c)
                        if is_on != (value > threshold):
                            is_on = not is_on
                            end = put_border(borders, begin, end, base + y)
                if is_on:
                    end = put_border(borders, begin, end, base + row_edges[-1])
        borders, end = close_mask(borders, begin, end, n_image_pixels)
        counts[m] = end - begin
    return borders[:end], counts


@compiled
def _find_changes(
    row_starts: Int64s,
    least: npt.NDArray[np.float32],
    most: npt.NDArray[np.float32],
    threshold: np.float32,
    blocks: Int64s,
    kinds: Int64s,
) -> int:
    """Going down a column: the blocks that are mixed, or known and unlike the one above."""
    n_blocks = 0
    last = _OFF
    for by in range(len(row_starts)):
        top = row_starts[by]
        kind = _MIXED
        if min(least[top], least[top + 1], least[top + 2]) > threshold:
            kind = _ON
        elif max(most[top], most[top + 1], most[top + 2]) <= threshold:
            kind = _OFF
        if kind == _MIXED or kind != last:
            blocks[n_blocks], kinds[n_blocks] = by, kind
            n_blocks += 1
        last = kind
    return n_blocks


@compiled
def _extremes(
    mask: npt.NDArray[np.float32],
    left: int,
    least: npt.NDArray[np.float32],
    most: npt.NDArray[np.float32],
) -> None:
    """The least and the largest of each row's three values from `left` on."""
    for row in range(len(least)):
        a, b, c = mask[row, left], mask[row, left + 1], mask[row, left + 2]
        least[row] = min(a, b, c)
        most[row] = max(a, b, c)


@compiled
def _column_values(
    mask: npt.NDArray[np.float32], top: int, left: int, weights: npt.NDArray[np.float32]
) -> tuple[np.float32, np.float32, np.float32]:
    """Three rows' values at one output column."""
    u, v, w = weights[0], weights[1], weights[2]
    return (
        u * mask[top, left] + v * mask[top, left + 1] + w * mask[top, left + 2],
        u * mask[top + 1, left] + v * mask[top + 1, left + 1] + w * mask[top + 1, left + 2],
        u * mask[top + 2, left] + v * mask[top + 2, left + 1] + w * mask[top + 2, left + 2],
    )


@compiled
def _value(
    weights: npt.NDArray[np.float32], y: int, a: np.float32, b: np.float32, c: np.float32
) -> np.float32:
    """The logit in output row y, of three rows' values at its column: one order of rounding."""
    return weights[y, 0] * a + weights[y, 1] * b + weights[y, 2] * c


assert TAPS == 3  # the kernels are written out for it
