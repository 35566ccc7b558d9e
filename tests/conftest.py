"""Fixtures that many tests share: the built-in model, and photos inside scikit-image's wheel."""

import numpy as np
import pytest
import skimage.data
from s3_server import s3, s3_endpoint  # noqa: F401 - fixtures

import amg


@pytest.fixture(scope="session")
def nano():
    """The built-in model on the CPU."""
    return amg.load_model("nano", device="cpu")


@pytest.fixture(scope="session")
def photos():
    """Six photos, (H, W, 3) uint8, of 0.15 to 0.37 megapixels; two of them are grey."""
    names = ("astronaut", "cat", "coffee", "rocket", "camera", "coins")
    images = {name: getattr(skimage.data, name)() for name in names}
    return {name: _rgb(image) for name, image in images.items()}


def _rgb(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
