"""Masks as polygons that draw the same mask again.

A mask's outline can run in two ways, and which is right depends on who draws it:
- along the borders of its pixels, for those who fill what lies inside a polygon, as pycocotools
  does: a single pixel is a square of side 1;
- through the centres of its outermost pixels, for those who also draw the line itself, as
  `cv2.fillPoly` does: a single pixel is a point.
Both are exact. OpenCV's contours are of the second kind; the first is made from them.

Pixels that touch at a corner are connected, background pixels are not. A polygon cannot say that it
has a hole: the hole's loop is joined to the outer one by a bridge there and back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from amg.ops import rle
from amg.records import Rle

Points = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]
Lines = Literal["borders", "centres"]

# Clockwise as displayed, y down: E SE S SW W NW N NE. Sides of a pixel are the even ones.
_STEPS = np.array([(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)])
_DIRECTIONS = np.zeros((3, 3), np.intp)
_DIRECTIONS[_STEPS[:, 1] + 1, _STEPS[:, 0] + 1] = np.arange(8)
# With the mask on the left hand, where the walk along a side begins: E, S, W, N of the pixel.
_SIDE_STARTS = np.zeros((8, 2), np.int32)
_SIDE_STARTS[[0, 2, 4, 6]] = (1, 1), (0, 1), (0, 0), (1, 0)


@dataclass(frozen=True, slots=True)
class Outline:
    """One part of a mask: a loop around it and one around each of its holes, (K, 2) int32 x, y.

    Loops go on in steps of one pixel, with the mask on their left hand as displayed.
    """

    outer: Points
    holes: tuple[Points, ...]


def trace(bits: Bools, lines: Lines) -> list[Outline]:
    """Outline each part of a (H, W) bool mask."""
    contours, tree = cv2.findContours(bits.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return []
    loops = [np.asarray(contour, np.int32).reshape(-1, 2) for contour in contours]
    if lines == "borders":
        loops = _along_borders(loops)
    parents = np.asarray(tree).reshape(-1, 4)[:, 3].tolist()
    holes: dict[int, list[Points]] = {i: [] for i, parent in enumerate(parents) if parent < 0}
    for loop, parent in zip(loops, parents, strict=True):
        if parent >= 0:
            holes[parent].append(loop)
    return [Outline(loops[i], tuple(inner)) for i, inner in holes.items()]


def trace_rle(mask: Rle, lines: Lines) -> list[Outline]:
    """Outline each part of a mask. Raises RleError as `rle.runs`."""
    x, y, w, h = map(int, rle.pixel_box_xywh(mask))
    if w == 0:
        return []
    window = np.ascontiguousarray(rle.decode(mask)[y : y + h, x : x + w])
    offset = np.array([x, y], np.int32)
    return [
        Outline(part.outer + offset, tuple(hole + offset for hole in part.holes))
        for part in trace(window, lines)
    ]


def bridge_holes(outline: Outline) -> Points:
    """One loop for a part with its holes, with a bridge to each.

    From a hole's leftmost point the bridge goes left over pixels of the mask, to the nearest point
    of a loop: even who draws the bridge does not draw outside the mask.
    """
    loop = outline.outer
    firsts = [int(np.lexsort((hole[:, 1], hole[:, 0]))[0]) for hole in outline.holes]
    # What lies to the left of a hole has been joined before it.
    for i in sorted(range(len(firsts)), key=lambda i: int(outline.holes[i][firsts[i], 0])):
        hole = _from(outline.holes[i], firsts[i])
        x, y = hole[0]
        left = np.flatnonzero((loop[:, 1] == y) & (loop[:, 0] <= x))
        pier = int(left[np.argmax(loop[left, 0])])
        loop = np.concatenate([loop[: pier + 1], hole, hole[:1], loop[pier:]])
    return loop


def bridge_parts(loops: Sequence[Points]) -> Points:
    """One loop for several, with bridges between points that are near each other.

    Who draws lines draws the bridges, too.
    """
    joined, *others = sorted(loops, key=len, reverse=True)
    for loop in others:
        pier = _nearest(joined, loop.mean(axis=0))
        start = _nearest(loop, joined[pier])
        around = _from(loop, start)
        joined = np.concatenate([joined[: pier + 1], around, around[:1], joined[pier:]])
    return joined


def corners(loop: Points) -> Points:
    """The same polygon without the points that lie on a straight line between their neighbours."""
    steps = np.diff(loop, axis=0, append=loop[:1])
    before = np.concatenate([steps[-1:], steps[:-1]])
    turns = before[:, 0] * steps[:, 1] != before[:, 1] * steps[:, 0]
    returns = (before * steps).sum(axis=1) <= 0
    kept = loop[turns | returns]
    return kept if len(kept) else loop[:1]


def simplify(loop: Points, tolerance_px: float) -> Points:
    """Fewer points, none of the old ones farther than this from the line (Douglas and Peucker).

    A polygon that would become a line stays as it is.
    """
    if tolerance_px <= 0:
        return loop
    simple = np.asarray(cv2.approxPolyDP(loop, tolerance_px, closed=True), np.int32)[:, 0]
    return simple if len(simple) >= 3 else loop


def _along_borders(contours: Sequence[Points]) -> list[Points]:
    """Turn OpenCV's loops through pixels into loops along their borders, all at once.

    At each pixel, those of its sides lie on the border that a look from the pixel before to the
    one after sweeps over, turning against the clock; around a lone pixel it sweeps over all four.
    """
    pixels = np.concatenate(contours)
    ends = np.cumsum([len(contour) for contour in contours])
    starts = np.concatenate([[0], ends[:-1]])
    after, before = np.arange(1, len(pixels) + 1), np.arange(-1, len(pixels) - 1)
    after[ends - 1], before[starts] = starts, ends - 1
    steps = pixels[after] - pixels
    ahead = _DIRECTIONS[steps[:, 1] + 1, steps[:, 0] + 1]
    back = ahead[before] + 4
    n_between = (back - ahead - 1) % 8
    n_between[starts[ends - starts == 1]] = 8
    sweep = np.arange(8)
    swept = (back[:, None] - 1 - sweep) % 8
    is_side = (swept % 2 == 0) & (sweep < n_between[:, None])
    n_sides = is_side.sum(axis=1)
    points = np.repeat(pixels, n_sides, axis=0) + _SIDE_STARTS[swept[is_side]]
    return np.split(points, np.cumsum(np.add.reduceat(n_sides, starts))[:-1])


def _from(loop: Points, start: int) -> Points:
    """The same loop, begun at another point."""
    return np.concatenate([loop[start:], loop[:start]])


def _nearest(points: Points, to: npt.ArrayLike) -> int:
    return int(((points - np.asarray(to)) ** 2).sum(axis=1).argmin())
