"""Fixtures that many tests share: the built-in model, and photos inside scikit-image's wheel."""

import os
import shutil
import uuid

# Torch's threads wait for each other without eating a core each: read when torch is imported, and
# by processes that tests start. On a busy machine small models take several times less with it.
os.environ["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "passive")

import numpy as np
import pytest
import skimage.data
import torch
from s3_server import s3, s3_endpoint  # noqa: F401 - fixtures

import amg
from amg.storage.stores import open_storage
from tests.pipelines.forks import fork_workers, serving_forks
from tests.pipelines.helpers import make_run

# Whether kernels are interpreted is settled when triton is imported: here, before any test is.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


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


@pytest.fixture
def set_threads():
    """Choose torch's number of threads; the old one comes back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(params=["local", "memory", "s3"])
def storage(request, tmp_path):
    """An empty folder of each kind that runs can be kept in."""
    if request.param == "local":
        return open_storage(tmp_path / "out")
    if request.param == "memory":
        return open_storage(f"memory://{uuid.uuid4().hex}/out")
    return open_storage(f"s3://{request.getfixturevalue('s3')}/some/out")


def _rgb(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


@pytest.fixture(scope="session")
def forks():
    """A process that workers and drivers are forked from, with all imported that they need."""
    with serving_forks():
        yield


@pytest.fixture
def forked(forks, monkeypatch):
    """The test's runs fork their workers."""
    fork_workers(monkeypatch)


@pytest.fixture(scope="module")
def forked_workers(forks):
    """The module's runs fork their workers: those of its subprocesses do not."""
    with pytest.MonkeyPatch.context() as patched:
        fork_workers(patched)
        yield


@pytest.fixture(scope="module")
def finished(forked_workers, folder, tmp_path_factory):
    """A run of the module's `folder` with a stub; what `amg` finds there, it takes for its own."""
    out = tmp_path_factory.mktemp("run") / "out"
    make_run(folder, out).execute()
    return out


@pytest.fixture
def out(finished, tmp_path):
    """A copy of the finished run, to be damaged."""
    return shutil.copytree(finished, tmp_path / "out")
