"""What tests of the generator share: the built-in model at half its size, and smaller photos."""

import numpy as np
import pytest
import torch

import amg


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small models are slower with more, much so on a busy machine."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="session")
def small_nano():
    """The built-in model with an input of 224 pixels, which fill its windows as 448 do."""
    return amg.load_model("nano", device="cpu", imgsz=224)


@pytest.fixture(scope="session")
def small_photos(photos):
    """Every second pixel of each photo: 150 x 225 to 256 x 256."""
    return {name: np.ascontiguousarray(photo[::2, ::2]) for name, photo in photos.items()}
