import pytest

from tests.exports.pictures import make_run


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A small run, complete: five images in three shards."""
    return make_run(tmp_path_factory.mktemp("run") / "out")
