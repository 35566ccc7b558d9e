"""The picture of a row, as the run saw it, or why it cannot be shown; and it with its masks."""

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from amg.errors import ImageError, StorageError
from amg.inputs.sources import ImageSource
from amg.ops.colours import Colour
from amg.ops.rle_resize import shrink
from amg.records import Mask
from amg.runs.planned import read_planned_image
from amg.runs.schema import ImageRow
from amg.view.overlay import draw_overlay

Pixels = npt.NDArray[np.uint8]


class NoPictureError(Exception):
    """Why an image's picture cannot be shown, in words for the page."""


def load_picture(row: ImageRow, source: ImageSource, max_pixels: int) -> Pixels:
    """The pixels that the run segmented, (H, W, 3).

    Raises NoPictureError where the file is gone, cannot be read, or is not what it was, and for one
    that no worker has lived to read: it is not opened.
    """
    if row.status == "crashed" and row.height is None:
        raise NoPictureError("The file was not opened again: workers died of it.")
    try:
        rgb = read_planned_image(source, row.sha256, max_pixels)
    except ImageError as error:
        gone = error.status == "missing" and row.status != "missing"
        what = "The file is not there any more" if gone else "There is no picture"
        raise NoPictureError(f"{what}: {error}.") from error
    except StorageError as error:
        raise NoPictureError(f"The storage did not give the file: {error}.") from error
    if row.height is not None and rgb.shape[:2] != (row.height, row.width):
        raise NoPictureError("The file is read at another size than in the run.")
    return rgb


def fit(rgb: Pixels, longest_px: int) -> Pixels:
    """The picture with no side longer than this; never larger than it is."""
    h, w = rgb.shape[:2]
    scale = longest_px / max(h, w)
    if scale >= 1:
        return rgb
    size_wh = max(1, round(w * scale)), max(1, round(h * scale))
    return np.asarray(cv2.resize(rgb, size_wh, interpolation=cv2.INTER_AREA), np.uint8)


def with_masks(small: Pixels, masks: Sequence[Mask], colours: Sequence[Colour]) -> Pixels:
    """A picture that may have been made smaller, with its masks drawn over it."""
    size_hw = small.shape[0], small.shape[1]
    shrunk = [replace(m, rle=shrink(m.rle, size_hw)) for m in masks]
    return draw_overlay(small, shrunk, colours=colours)


def as_jpeg(rgb: Pixels, quality: int) -> bytes:
    """The picture as a JPEG file."""
    buffer = BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
