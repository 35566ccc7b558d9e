"""Arrays as PNG files."""

import cv2
import numpy as np

from amg.errors import OutputError


def to_png(pixels: np.ndarray) -> bytes:
    """Encode (H, W) uint8 or uint16, or (H, W, 3) uint8 RGB, without loss."""
    array = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    done, data = cv2.imencode(".png", array)
    if not done:
        raise OutputError(f"an image of {pixels.shape} pixels cannot be a PNG")
    return data.tobytes()
