"""What tests of the predictor share: small models of all families beside the originals; photos."""

import numpy as np
import pytest
import segment_anything
import skimage.data
import torch

import amg
from amg.models.families.build import build_tiny_sam
from amg.models.families.sizes import MOBILE_SAM
from benchmarks.original import original_sam as with_original_modules
from tests.models.oracles import SIZE_PX, our_sam
from tests.models.parity import randomise


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


def sam_pair(model):
    """A model of SAM's kind and the original predictor of its weights."""
    return model, segment_anything.SamPredictor(with_original_modules(model))


def small_mobile_sam():
    model = build_tiny_sam(MOBILE_SAM)
    model.set_imgsz(SIZE_PX)
    return randomise(model).eval()


def sam2_pair(**changes):
    original_sam2 = pytest.importorskip("benchmarks.original_sam2")
    from tests.models.small_sam2 import prompted_twins

    ours, theirs = prompted_twins(**changes)
    return ours, original_sam2.original_predictor(theirs)


FAMILIES = {
    "nano": sam_pair,
    "sam": lambda _: sam_pair(randomise(our_sam())),
    "mobile_sam": lambda _: sam_pair(small_mobile_sam()),
    "sam2": lambda _: sam2_pair(),
    "sam2 without an object score": lambda _: sam2_pair(
        pred_obj_scores=False, fixed_no_obj_ptr=False
    ),
}


@pytest.fixture(scope="package", params=FAMILIES)
def pair(request, small_nano):
    """A model of each family and its original predictor."""
    return FAMILIES[request.param](small_nano)


_NAMES = (
    *("astronaut", "cat", "coffee", "rocket", "camera", "coins", "hubble_deep_field"),
    *("immunohistochemistry", "moon", "page", "brick", "gravel"),
)


@pytest.fixture(scope="session")
def twelve_photos():
    """Twelve photos, of different shapes, at most 256 px long."""
    found = []
    for i, name in enumerate(_NAMES):
        photo = getattr(skimage.data, name)()
        step = -(-max(photo.shape[:2]) // 256)
        photo = photo[::step, ::step]
        photo = photo[: 150 + 9 * i, : 250 - 9 * i]
        rgb = photo if photo.ndim == 3 else np.repeat(photo[..., None], 3, axis=2)
        found.append(np.ascontiguousarray(rgb))
    return found
