import hashlib
import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

from amg import ConfigError, GeneratorConfig, MaskGenerator
from amg.cli import app
from amg.config import RunConfig, load_config
from amg.io.shards import read_shard
from amg.io.sources import find_images
from amg.ops import rle
from amg.records import ImageResult
from pipelines.driver import Run
from pipelines.worker import Worker

QUICK = ["generator.points_per_side=4", "run.images_per_shard=3", "run.images_per_batch=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photos):
    """Four good images and two bad ones; names give their order."""
    folder = tmp_path_factory.mktemp("photos")
    for i, name in enumerate(("astronaut", "coffee", "cat", "camera")):
        small = Image.fromarray(photos[name]).resize((120 + 16 * i, 90))
        small.save(folder / f"{i}-{name}.png")
    (folder / "1-zero.jpg").write_bytes(b"")
    truncated = (folder / "0-astronaut.png").read_bytes()[:2000]
    (folder / "2-truncated.png").write_bytes(truncated)
    return folder


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """The folder's finished run, and its report."""
    out = tmp_path_factory.mktemp("run")
    run = Run([folder], out, load_config(None, QUICK))
    seen = []
    report = run.execute(seen.append)
    return out, report, seen, [row for path in run.shard_paths() for row in read_shard(path)]


def test_one_row_for_each_image_in_order(folder, finished):
    _, _, seen, rows = finished
    assert [row.image_id for row in rows] == sorted(path.name for path in folder.iterdir())
    assert [row.image_id for row in seen] == [row.image_id for row in rows]


def test_bad_images_are_rows_with_a_reason(finished):
    rows = {row.image_id: row for row in finished[3]}
    for name in ("1-zero.jpg", "2-truncated.png"):
        assert rows[name].status == "decode_error"
        assert rows[name].error
        assert rows[name].masks == ()
    assert rows["0-astronaut.png"].status in ("ok", "empty")


def test_rows_hold_what_the_generator_gives(folder, finished, nano):
    generator = MaskGenerator(nano, GeneratorConfig(points_per_side=4))
    for row in finished[3]:
        if row.status in ("ok", "empty"):
            data = (folder / row.image_id).read_bytes()
            assert row.sha256 == hashlib.sha256(data).hexdigest()
            image = np.array(Image.open(folder / row.image_id).convert("RGB"))
            assert (row.height, row.width) == image.shape[:2]
            expected = generator.generate(image)
            assert [mask.rle for mask in row.masks] == [mask.rle for mask in expected.masks]
            for mask in row.masks:
                assert mask.area == rle.area(mask.rle)


def test_the_report_counts(finished):
    out, report, _, rows = finished
    assert report.images == len(rows) == 6
    assert report.failed == 2
    assert report.masks == sum(len(row.masks) for row in rows) > 0
    written = json.loads((out / "report.json").read_text())
    assert written["images"] == 6
    assert written["statuses"]["decode_error"] == 2


def test_shards_have_the_planned_size(finished):
    shards = sorted((finished[0] / "data").glob("*.parquet"))
    assert [len(list(read_shard(path))) for path in shards] == [3, 3]


def test_the_configuration_in_force_is_written(finished, nano):
    written = yaml.safe_load((finished[0] / "config.yaml").read_text())
    assert written["generator"]["points_per_side"] == 4
    defaults = nano.info.generator_defaults
    assert written["generator"]["pred_iou_thresh"] == defaults["pred_iou_thresh"]


def test_another_run_is_not_overwritten_unless_asked(folder, finished):
    with pytest.raises(ConfigError, match="overwrite"):
        Run([folder], finished[0], load_config(None, QUICK))


def _invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_command_line_run_says_by_its_exit_code_that_images_failed(folder, tmp_path):
    arguments = ["run", folder, "--out", tmp_path / "out", "--limit", 3]
    result = _invoke(*arguments, *(f"--set={value}" for value in QUICK))
    assert result.exit_code == 3, result.output
    assert "1 decode_error" in result.output


def test_command_line_run_of_good_images_exits_with_zero(folder, tmp_path):
    good = [folder / "0-astronaut.png", folder / "2-cat.png"]
    result = _invoke("run", *good, "--out", tmp_path / "out", *(f"--set={v}" for v in QUICK))
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "/nowhere", "--out", "OUT"], "nowhere"),
        (["run", "FOLDER", "--out", "OUT", "--set", "generator.points=3"], "generator.points"),
        (["run", "FOLDER", "--out", "OUT", "--model", "nemo"], "nemo"),
        (["run", "FOLDER", "--out", "OUT", "--checkpoint", "/nowhere.pt"], "nowhere.pt"),
        (["show", "/nowhere.jpg", "--out", "OUT/a.png"], "nowhere.jpg"),
    ],
)
def test_mistakes_are_named_and_exit_with_two(folder, tmp_path, arguments, said):
    places = {"FOLDER": str(folder), "OUT": str(tmp_path / "out"), "OUT/a.png": f"{tmp_path}/a.png"}
    result = _invoke(*(places.get(argument, argument) for argument in arguments))
    assert result.exit_code == 2, result.output
    assert said in result.output.replace("\n", "")


def test_an_output_that_cannot_be_written_exits_with_five(folder, tmp_path):
    (tmp_path / "out").write_text("a file")
    result = _invoke("run", folder, "--out", tmp_path / "out")
    assert result.exit_code == 5, result.output


def test_show_draws_an_overlay(folder, tmp_path):
    out = tmp_path / "overlay.png"
    result = _invoke(
        "show", folder / "2-cat.png", "--out", out, "--set", QUICK[0], "--side-by-side"
    )
    assert result.exit_code == 0, result.output
    assert Image.open(out).size == (2 * 152 + 8, 90)


def test_models_are_listed():
    result = _invoke("models")
    assert result.exit_code == 0
    for name in ("nano", "mobile_sam", "sam_vit_b", "sam_vit_l", "sam_vit_h"):
        assert name in result.output


class _FailingGenerator:
    """Fails on batches that hold a white image, with the error that the test wants."""

    def __init__(self, error):
        self.error = error

    def generate_batch(self, images):
        if any(image.min() == 255 for image in images):
            raise self.error
        return [ImageResult(image.shape[:2], ()) for image in images]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MemoryError("no more"), "oom"),
        (torch.OutOfMemoryError("CUDA out of memory"), "oom"),
        (RuntimeError("a bug"), "crashed"),
    ],
)
def test_an_image_that_cannot_be_segmented_is_a_row_and_spoils_no_other(tmp_path, error, status):
    for i in range(5):
        Image.new("RGB", (8, 8), "white" if i == 2 else "black").save(tmp_path / f"{i}.png")
    worker = Worker(_FailingGenerator(error), RunConfig(images_per_batch=4))
    rows = list(worker.rows(find_images([tmp_path])))
    assert [row.image_id for row in rows] == [f"{i}.png" for i in range(5)]
    assert [row.status for row in rows] == ["empty", "empty", status, "empty", "empty"]
    assert str(error) in rows[2].error


def test_leaving_early_does_not_wait_for_what_was_read_ahead(folder):
    worker = Worker(_FailingGenerator(RuntimeError()), RunConfig(images_per_batch=1))
    rows = worker.rows(find_images([folder]))
    next(rows)
    rows.close()
