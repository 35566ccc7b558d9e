"""`amg export` from the command line."""

import json

import pytest
from typer.testing import CliRunner

from amg.cli import app
from amg.records import Rle
from benchmarks.synthetic_run import write_run
from tests.exports.pictures import blob, make_mask, make_row, make_run, rows


def _amg(*arguments):
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_a_run_becomes_coco_with_a_summary(run, tmp_path):
    result = _amg(run, "--to", "coco", "--out", tmp_path / "out", "--min-predicted-iou", "0.65")
    assert result.exit_code == 0, result.output
    values = json.loads((tmp_path / "out" / "instances.json").read_bytes())
    assert f"4 images, {len(values['annotations'])} masks" in result.output
    assert "1 images left out: decode_error" in result.output
    assert "masks not chosen" in result.output


def test_a_folder_may_be_called_as_markup(run, tmp_path):
    result = _amg(run, "--to", "sa1b", "--out", tmp_path / "out[" / "x]")
    assert result.exit_code == 0, result.output
    assert "out[/x]" in result.output


def test_options_of_formats_reach_them(run, tmp_path):
    options = ["--segmentation", "polygons", "--tolerance", "0.5", "--label", "thing"]
    result = _amg(run, "--to", "cvat", "--out", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    identity = json.loads((tmp_path / "out" / ".amg-export" / "export.json").read_bytes())
    assert identity["options"] == {
        "segmentation": "polygons",
        "tolerance": 0.5,
        "file_name": "id",
        "images_per_file": None,
        "label": "thing",
    }


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--to", "cocoa"], 2, "format 'cocoa': expected one of"),
        (["--to", "yolo", "--overlap", "score"], 2, "yolo has no option overlap"),
        (["--to", "label-map", "--overlap", "best"], 2, "overlap: Input should be"),
    ],
)
def test_bad_usage_is_said(run, tmp_path, arguments, code, message):
    result = _amg(run, *arguments, "--out", tmp_path / "out")
    assert result.exit_code == code
    assert message in " ".join(result.output.split())


def test_what_cannot_be_opened_or_written_is_said(run, tmp_path):
    result = _amg(tmp_path / "nothing", "--to", "coco", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "holds no run" in " ".join(result.output.split())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    result = _amg(run, "--to", "coco", "--out", tmp_path / "full")
    assert result.exit_code == 5
    result = _amg(run, "--to", "coco", "--out", "s3://bucket/x")
    assert result.exit_code == 2
    assert "exports go to a local folder" in " ".join(result.output.split())


def test_an_image_that_is_refused_has_an_exit_code(tmp_path):
    good = make_mask(blob(0))
    bad = make_mask(blob(0), rle=Rle(good.rle.size_hw, "0"))
    run = make_run(tmp_path / "run", [make_row("a.jpg", [good]), make_row("bad.jpg", [bad])])
    result = _amg(run, "--to", "label-map", "--out", tmp_path / "out")
    assert result.exit_code == 3
    assert "1 images refused" in result.output
    assert "bad.jpg: counts: sum is 0" in " ".join(result.output.split())
    assert (tmp_path / "out" / "a.png").exists()


def test_a_run_that_is_not_complete_is_said(tmp_path):
    write_run(tmp_path / "run", rows(), 5, 2, missing_shards=frozenset({1}))
    result = _amg(tmp_path / "run", "--to", "sa1b", "--out", tmp_path / "out")
    assert result.exit_code == 0
    assert "2 of 3 shards are exported" in result.output


def test_help_names_the_formats():
    result = _amg("--help")
    for name in ("coco", "sa1b", "yolo", "label-map", "panoptic", "png", "label-studio", "cvat"):
        assert name in result.output
