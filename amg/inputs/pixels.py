"""An image however somebody in a program has it, as pixels: an array, Pillow's, or a path."""

from os import PathLike

import numpy as np
from PIL import Image

from amg.errors import ImageError
from amg.inputs.images import convert_image, decode_image

AnyImage = np.ndarray | Image.Image | str | PathLike[str]
"""An array (H, W, 3) uint8 RGB, an image of Pillow's, or the path or URL of a file."""


def as_pixels(image: AnyImage, name: str = "image") -> np.ndarray:
    """The pixels of an image, (H, W, 3) uint8 RGB; an array comes back itself.

    A file is read as a run reads it, turned upright by its EXIF. An image of Pillow's is taken as
    it lies, since its `size` is what its user knows; colours and alpha follow the same rules.

    Raises ImageError, which calls the image `name`; StorageError for storage that may be back.
    """
    if isinstance(image, str | PathLike):
        return _read(image, name)
    if isinstance(image, Image.Image):
        return _convert(image, name)
    _check_array(image, name)
    return image


def _read(path: str | PathLike[str], name: str) -> np.ndarray:
    # What reads sources of all kinds takes a moment to import.
    from amg.inputs.reading import read_location  # noqa: PLC0415

    try:
        return decode_image(read_location(path)).rgb
    except ImageError as error:
        raise ImageError(error.status, f"{name}: {path}: {error.message}") from error


def _convert(image: Image.Image, name: str) -> np.ndarray:
    try:
        return convert_image(image)
    except ImageError as error:
        raise ImageError(error.status, f"{name}: {error.message}") from error


def _check_array(image: np.ndarray, name: str) -> None:
    shape = getattr(image, "shape", None)
    dtype = getattr(image, "dtype", None)
    if not isinstance(image, np.ndarray) or image.ndim != 3 or dtype != np.uint8:
        raise ImageError(
            "decode_error",
            f"{name}: expected an array (H, W, 3) uint8, an image of Pillow's or a path, "
            f"got {type(image).__name__} {shape} {dtype}",
        )
    if image.shape[2] != 3 or 0 in image.shape:
        raise ImageError("decode_error", f"{name}: expected (H, W, 3) RGB, got {shape}")
