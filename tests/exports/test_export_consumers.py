"""Exports as others' libraries read them, each in its own version: `make test-all`."""

import json
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import amg
from amg.ops import polygons, rle
from amg.ops.label_map import paint
from tests.exports.pictures import SIZE_HW, make_run, rows

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-formats" / "bin" / "python"
SCRIPT = Path(__file__).with_name("consumers.py")

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="made by make test-all")

FLAT = [row for row in rows() if "/" not in row.image_id]
ALL = {row.image_id.rpartition(".")[0]: row for row in rows() if row.height is not None}
MASKS = {name: [mask.rle.counts for mask in row.masks] for name, row in ALL.items()}


def _read(reader, folder):
    command = [str(PYTHON), str(SCRIPT), reader, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def _unzipped(run, folder, **options):
    amg.export(run, "cvat", folder / "zip", **options)
    with zipfile.ZipFile(folder / "zip" / "cvat.zip") as archive:
        archive.extractall(folder / "out")
    (folder / "out" / "images").mkdir()  # datumaro asks for it, CVAT has the images
    return folder / "out"


def test_datumaro_reads_sa1b(run, tmp_path):
    flat = make_run(tmp_path / "run", FLAT)  # it looks into one folder only
    amg.export(flat, "sa1b", tmp_path / "out")
    expected = {name: MASKS[name] for name in ("two", "empty")}
    assert _read("datumaro-sa1b", tmp_path / "out") == expected


def test_datasets_reads_sa1b(run, tmp_path):
    amg.export(run, "sa1b", tmp_path)
    assert _read("datasets", tmp_path) == MASKS


def test_datumaro_reads_what_cvat_imports(run, tmp_path):
    assert _read("datumaro-coco", _unzipped(run, tmp_path)) == MASKS


def test_datumaro_reads_polygons(run, tmp_path):
    assert _read("datumaro-polygons", _unzipped(run, tmp_path, segmentation="polygons")) == MASKS


def test_datumaro_reads_panoptic(run, tmp_path):
    amg.export(run, "panoptic", tmp_path)
    (tmp_path / "images").mkdir()
    found = _read("datumaro-panoptic", tmp_path)
    assert set(found) == set(ALL)
    for name, row in ALL.items():
        canvas = paint(row.masks, range(1, len(row.masks) + 1), SIZE_HW, "smaller-on-top")
        seen = [canvas == number for number in np.unique(canvas) if number]
        expected = rle.encode_masks(np.array(seen)) if seen else []
        assert found[name] == [mask.counts for mask in expected]


def test_label_studio_decodes_brushes(run, tmp_path):
    amg.export(run, "label-studio", tmp_path, segmentation="rle")
    assert _read("label-studio-brush", tmp_path) == MASKS


@pytest.mark.parametrize("segmentation", ["rle", "polygons"])
def test_label_studio_takes_tasks_and_interface(run, tmp_path, segmentation):
    amg.export(run, "label-studio", tmp_path, segmentation=segmentation)
    assert set(_read("label-studio-check", tmp_path)) == set(ALL)


def test_supervision_reads_yolo(run, tmp_path):
    flat = make_run(tmp_path / "run", FLAT)
    out = tmp_path / "out"
    amg.export(flat, "yolo", out)
    (out / "images").mkdir()
    for name in ("two", "empty"):
        Image.new("RGB", SIZE_HW[::-1]).save(out / "images" / f"{name}.jpg")
    found = _read("supervision", out)
    assert found["empty"] == []
    masks = [mask.rle for mask in ALL["two"].masks]
    is_one_part = [len(polygons.trace_rle(mask, "centres")) == 1 for mask in masks]
    assert [counts == mask.counts for counts, mask in zip(found["two"], masks, strict=True)] == (
        is_one_part
    )
    assert sum(is_one_part) > 10
