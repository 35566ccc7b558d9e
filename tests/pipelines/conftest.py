"""What tests of finished runs share; each module says which `folder` of images it runs."""

import shutil

import pytest

from tests.pipelines.helpers import make_run


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """A run of the module's folder with a stub; what `amg` finds there, it takes for its own."""
    out = tmp_path_factory.mktemp("run") / "out"
    make_run(folder, out).execute()
    return out


@pytest.fixture
def out(finished, tmp_path):
    """A copy of the finished run, to be damaged."""
    return shutil.copytree(finished, tmp_path / "out")
