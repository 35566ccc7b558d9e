"""Finding the images of a run again."""

import shutil

import numpy as np
import pytest
from PIL import Image

from amg import ImageError, RunError, open_run
from amg.runs.planned import PlannedInputs
from amg.storage.stores import open_storage
from tests.pipelines.helpers import make_folder, make_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("planned") / "photos", 5)


@pytest.fixture(scope="module")
def finished(forked_workers, folder):
    """A run of the folder, to be copied."""
    out = folder.parent / "out"
    make_run(folder, out, "run.images_per_shard=2").execute()
    return out


def test_sources_are_found_by_id_with_their_places(out):
    found = PlannedInputs(open_storage(out)).find(["004.png", "001.png", "none.png"])
    assert {image_id: row for image_id, (row, _) in found.items()} == {"001.png": 1, "004.png": 4}
    assert found["004.png"][1].uri.endswith("photos/004.png")


def test_a_row_and_its_image_by_id(folder, out):
    run = open_run(out)
    row = run.row("003.png")
    assert (row.image_id, len(row.masks)) == ("003.png", 1)
    expected = np.array(Image.open(folder / "003.png").convert("RGB"))
    np.testing.assert_array_equal(run.image(row), expected)


def test_images_that_were_not_planned_or_are_not_done_are_named(out):
    with pytest.raises(RunError, match=r"out: no image '9\.png' was planned; the first are '000"):
        open_run(out).row("9.png")
    (out / "commits/00001.json").unlink()
    with pytest.raises(RunError, match=r"'003\.png' is not done yet"):
        open_run(out).row("003.png")


def test_an_image_that_has_changed_or_gone_is_not_shown(forked_workers, folder, tmp_path):
    folder = shutil.copytree(folder, tmp_path / "photos")
    make_run(folder, tmp_path / "out", "run.images_per_shard=2").execute()
    run = open_run(tmp_path / "out")
    row = run.row("003.png")
    (folder / "003.png").write_bytes((folder / "002.png").read_bytes())
    with pytest.raises(ImageError, match=r"003\.png: the file has changed since the run"):
        run.image(row)
    (folder / "003.png").unlink()
    with pytest.raises(ImageError, match="no such file"):
        run.image(row)
