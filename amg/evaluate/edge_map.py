"""An edge map of a photo from soft masks: SAM's zero-shot edge detection.

Source: "Segment Anything" (2023), section 7.2 and appendix D.2.
"""

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from amg.errors import EvaluationError
from amg.storage.stores import LocalStorage

_SMOOTHING_PX = 4
_TOLERANCE = 1.01  # a plateau has no maximum: almost as strong as its neighbours is enough


def edge_map(
    soft_masks: Iterable[tuple[np.ndarray, np.ndarray]], size_hw: tuple[int, int]
) -> np.ndarray:
    """Thin edges (H, W) float32 in [0, 1] of any number of soft masks.

    soft_masks: probabilities (H, W) float32, and which pixels are the mask, (H, W) bool.
    """
    strongest = np.zeros(size_hw, dtype=np.float32)
    for probability, mask in soft_masks:
        edges = np.where(outer_boundary(mask), gradient_magnitude(probability), 0)
        np.maximum(strongest, edges, out=strongest)
    return suppress_beside_ridges(normalise(strongest))


def gradient_magnitude(image: np.ndarray) -> np.ndarray:
    """Sobel's, (H, W) float32; the image goes on beyond its border as it ends."""
    x, y = (
        cv2.Sobel(image, cv2.CV_32F, dx, 1 - dx, ksize=3, borderType=cv2.BORDER_REPLICATE)
        for dx in (1, 0)
    )
    return np.hypot(x, y)


def outer_boundary(mask: np.ndarray) -> np.ndarray:
    """Pixels outside of a mask (H, W) bool with one of their eight neighbours in it."""
    grown = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8))
    return grown.astype(bool) & ~mask


def normalise(values: np.ndarray) -> np.ndarray:
    """Linearly to [0, 1]; a constant becomes 0."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def suppress_beside_ridges(edges: np.ndarray) -> np.ndarray:
    """Keep (H, W) float32 where no neighbour across the edge is stronger; 0 elsewhere.

    The two neighbours are a pixel away, interpolated. As in Canny's detector, but with the
    direction of a ridge, not of a step: `across_ridges`.
    """
    angle = across_ridges(edges)
    rows, columns = np.indices(edges.shape, dtype=np.float32)
    neighbours = [
        cv2.remap(
            edges,
            columns + side * np.cos(angle),
            rows + side * np.sin(angle),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
        )
        for side in (1, -1)
    ]
    return np.where(edges * _TOLERANCE >= np.maximum(*neighbours), edges, 0)


def across_ridges(edges: np.ndarray) -> np.ndarray:
    """The direction (H, W) float32, in radians from x to y, in which values bend down most.

    It is that of the least eigenvalue of the second derivatives, after smoothing.
    """
    falling = np.arange(1, _SMOOTHING_PX + 2, dtype=np.float32)
    triangle = np.concatenate([falling, falling[-2::-1]]) / falling[-1] ** 2
    smooth = cv2.sepFilter2D(edges, cv2.CV_32F, triangle, triangle, borderType=cv2.BORDER_REFLECT)
    y, x = np.gradient(smooth)
    xy, xx = np.gradient(x)
    yy = np.gradient(y, axis=0)
    along = 0.5 * np.arctan2(2 * xy, xx - yy)  # of the greatest eigenvalue
    return (along + np.pi / 2).astype(np.float32)


def read_edge_map(path: Path) -> np.ndarray:
    """An edge map (H, W) in [0, 1] from a grey PNG of 8 or 16 bits.

    Raises EvaluationError for anything else.
    """
    try:
        with Image.open(path) as image:
            values = np.asarray(image)
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path}: cannot be read: {error}") from error
    if values.ndim != 2 or values.dtype not in (np.uint8, np.uint16, np.int32):
        raise EvaluationError(f"{path}: expected one channel of 8 or 16 bits, got {values.dtype}")
    return values / (255 if values.dtype == np.uint8 else 65535)


def write_edge_map(path: Path, edges: np.ndarray) -> None:
    """Write edges (H, W) in [0, 1] as a grey PNG of 16 bits, whole or not at all.

    Raises StorageError.
    """
    png = BytesIO()
    Image.fromarray(np.rint(edges * 65535).astype(np.uint16)).save(png, "PNG")
    LocalStorage(path.parent).write(path.name, png.getvalue())
