"""`amg eval` and `amg edges` from beginning to end, on runs of a stub."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from amg.cli import app
from amg.config import load_config
from amg.evaluate.evaluation import evaluate
from amg.ops import processes, rle
from amg.runs.folder import commit_file
from amg.runs.results import open_run
from pipelines import edges
from pipelines.corpus.run import Run
from tests.evaluate.half import make_half
from tests.evaluate.shapes import annotation, coco_tree, write_json
from tests.evaluate.test_bsds import write_mat
from tests.pipelines.helpers import QUICK, make_folder, make_run
from tests.pool import PoolHere

SIZE_HW = (24, 32)
N_IMAGES = 10  # in shards of eight
BAD = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = make_folder(tmp_path_factory.mktemp("photos"), N_IMAGES)
    path = folder / f"{BAD:03d}.png"
    path.write_bytes(path.read_bytes()[:300])
    return folder


@pytest.fixture(scope="module")
def finished_half(folder, tmp_path_factory):
    """A run of the same images in other shards, and with half of each mask."""
    out = tmp_path_factory.mktemp("half") / "half"
    config = load_config(None, [*QUICK, "run.images_per_shard=3"])
    Run([folder], out, config, make_generator=make_half).execute()
    return out


@pytest.fixture
def without_processes(monkeypatch):
    """Workers that are asked for are this process: `test_against_coco` has real ones."""
    monkeypatch.setattr(processes, "ProcessPoolExecutor", PoolHere)


@pytest.fixture
def bits(finished):
    """The mask of each image, (H, W) bool, by name; of the bad one all pixels."""
    found = {f"{BAD:03d}": np.ones(SIZE_HW, bool)}
    for row in open_run(finished).rows():
        found.update((row.image_id.removesuffix(".png"), rle.decode(m.rle)) for m in row.masks)
    assert len(found) == N_IMAGES
    return dict(sorted(found.items()))


def _truth(bits, **changes):
    images = {n: (f"{name}.jpg", SIZE_HW) for n, name in enumerate(bits)}
    annotations = [annotation(n, n, own) for n, own in enumerate(bits.values())]
    return {**coco_tree(images, annotations), **changes}


def _amg(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result.output


def _kept(out, name):
    (path,) = (out / "evaluation").glob(f"{name}-????????.json")
    return json.loads(path.read_text())


@pytest.mark.parametrize("workers", [1, 2])
def test_against_coco(out, bits, tmp_path, workers):
    truth = write_json(tmp_path / "instances.json", _truth(bits))
    options = ["--workers", workers, "--json", tmp_path / "new" / "copy.json"]
    said = _amg("eval", out, "--against", truth, "--max-masks", "1,5", *options)
    assert "10 images compared" in said
    assert "1 of them failed: they count as without masks." in said
    assert re.search(r"^all +10 +0.900 +0.900 +0.900 +0.900", said, re.MULTILINE)
    result = _kept(out, "instances-coco")
    assert result == json.loads((tmp_path / "new" / "copy.json").read_text())
    assert (result["kind"], result["rank"], result["is_complete"]) == ("coco", "mean", True)
    assert result["fingerprint"] == open_run(out).plan.fingerprint
    groups = {(line["group"], line["max_masks"]): line for line in result["recall"]}
    assert len(groups) == 4 * 3
    assert groups["all", None]["average_recall"] == pytest.approx(0.9)
    assert groups["small", 1]["n_instances"] == 10
    assert groups["large", 1]["average_recall"] is None
    predicted, _ = result["calibration"]
    assert (predicted["n_masks"], predicted["bins"][0]["mean_iou"]) == (9, 1.0)
    assert predicted["pearson"] is None


@pytest.mark.usefixtures("without_processes")
def test_only_the_same_comparison_takes_the_place_of_another(out, bits, tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "val.json", _truth(bits))
    runs = [
        ("a", "--rank", "mean"),
        ("b", "--rank", "mean"),
        ("a", "--rank", "stability"),
        ("a", "--max-masks", "1,5"),
        ("a/../a", "--workers", "2", "--max-masks", "5,1"),  # the same as that before
    ]
    counts = []
    for folder, *options in runs:
        _amg("eval", out, "--against", f"{tmp_path}/{folder}/val.json", *options)
        counts.append(len(list((out / "evaluation").iterdir())))
    assert counts == [1, 2, 3, 4, 4]


def test_what_cannot_be_kept_is_written_where_it_was_asked_for(out, bits, tmp_path):
    truth = write_json(tmp_path / "val.json", _truth(bits))
    (out / "evaluation").write_text("a file in place of the folder")
    assert "cannot create" in _amg("eval", out, "--against", truth, code=5)
    copy = tmp_path / "copy.json"
    said = _amg("eval", out, "--against", truth, "--json", copy)
    assert "warning: not kept in the run's folder: cannot create" in said
    assert json.loads(copy.read_text())["partners"]["n_compared"] == N_IMAGES


def test_against_lvis(out, bits, tmp_path):
    categories = [{"id": 1, "frequency": "r"}, {"id": 2, "frequency": "f"}]
    tree = _truth(bits, categories=categories)
    tree["annotations"][0]["category_id"] = 2
    _amg("eval", out, "--against", write_json(tmp_path / "val.json", tree))
    result = _kept(out, "val-lvis")
    groups = {line["group"]: line for line in result["recall"] if line["max_masks"] == 1000}
    counts = {name: groups[name]["n_instances"] for name in ("frequent", "common", "rare")}
    assert counts == {"frequent": 1, "common": 0, "rare": 9}
    assert groups["rare"]["average_recall"] == pytest.approx(8 / 9)


def test_images_without_partner_are_left_out_and_said(out, bits, tmp_path):
    some = dict(list(bits.items())[5:])
    some["elsewhere"] = bits["005"]
    some["006"] = bits["006"].T
    tree = _truth(some)
    tree["images"][1].update(height=SIZE_HW[1], width=SIZE_HW[0])
    said = _amg("eval", out, "--against", write_json(tmp_path / "some.json", tree))
    assert "4 images compared" in said
    assert "Left out: 5 images that the other side has not." in said
    assert "Left out: 1 image of the other side without a row here." in said
    assert "Left out: 1 image of another size there." in said
    result = _kept(out, "some-coco")
    assert result["partners"]["other_size"] == ["006.png"]
    assert result["partners"]["truth_alone"] == ["elsewhere.jpg"]
    assert result["recall"][0]["n_instances"] == 4


def test_a_run_that_goes_on_is_said_to_be_so(out, bits, tmp_path):
    (out / commit_file(1)).unlink()
    said = _amg("eval", out, "--against", write_json(tmp_path / "t.json", _truth(bits)))
    assert "8 images compared" in said
    assert "The run was not complete" in said
    assert not _kept(out, "t-coco")["is_complete"]


def test_against_bsds(out, bits, tmp_path):
    for name, own in bits.items():
        write_mat(tmp_path / "BSDS" / "groundTruth" / "val" / f"{name}.mat", own.astype(int))
    said = _amg("eval", out, "--against", tmp_path / "BSDS", "--max-masks", 3)
    assert "10 images compared" in said
    result = _kept(out, "BSDS-bsds")
    line = result["regions"][-1]
    shares = [(own.mean() + (~own).mean() * _iou(own, ~own)) for n, own in bits.items()]
    assert line["covering"] == pytest.approx((sum(shares) - shares[BAD]) / 10)
    assert line["masks_per_image"] == 0.9


def _iou(first, second):
    return (first & second).sum() / (first | second).sum()


@pytest.mark.usefixtures("without_processes")
@pytest.mark.parametrize("workers", [1, 2])
def test_against_another_run(finished_half, out, tmp_path, workers):
    half = shutil.copytree(finished_half, tmp_path / "half")
    said = _amg("eval", half, "--against", out, "--workers", workers)
    assert re.search(r"^masks of the reference +9$", said, re.MULTILINE)
    result = _kept(half, "out-run")["comparison"]
    assert (result["n_images"], result["n_reference"], result["n_ours"]) == (10, 9, 9)
    ious = []
    for mine, other in zip(open_run(half).rows(), open_run(out).rows(), strict=True):
        ious += [
            _iou(rle.decode(a.rle), rle.decode(b.rle))
            for a, b in zip(mine.masks, other.masks, strict=True)
        ]
    assert result["mean_best_iou"] == pytest.approx(np.mean(ious))
    assert result["n_matched"] == sum(iou >= 0.5 for iou in ious)
    assert result["n_exact"] == 1  # the image that failed in both
    _amg("eval", out, "--against", out, "--workers", workers)
    same = _kept(out, "out-run")["comparison"]
    assert (same["n_exact"], same["n_identical"], same["mean_best_iou"]) == (10, 9, 1)


def test_runs_of_other_roots_and_suffixes_are_compared(folder, out, tmp_path):
    photos = shutil.copytree(folder, tmp_path / "photos" / "train")
    for path in list(photos.iterdir())[::2]:
        path.rename(path.with_suffix(".jpg"))
    other = tmp_path / "other"
    make_run(photos.parent, other, "run.images_per_shard=3").execute()
    ids = {row.image_id for row in open_run(other).rows()}
    assert not ids & {row.image_id for row in open_run(out).rows()}
    evaluation = evaluate(str(out), str(other))
    assert evaluation.partners.n_compared == N_IMAGES
    comparison = evaluation.comparison
    assert (comparison.n_images, comparison.n_exact, comparison.n_identical) == (10, 10, 9)


def test_edges_are_drawn_and_scored(tmp_path, photos):
    small = np.asarray(Image.fromarray(photos["coins"]).resize((96, 76)))
    folder, maps = tmp_path / "photos", tmp_path / "maps"
    folder.mkdir()
    for name in "ab":
        Image.fromarray(small).save(folder / f"{name}.png")
        line = np.zeros(small.shape[:2], np.uint8)
        line[30] = 1
        labels = np.ones(small.shape[:2], int)
        write_mat(tmp_path / "BSDS" / f"{name}.mat", labels, boundaries=[line])
    points = ["--set", "generator.points_per_side=3"]
    said = _amg("edges", folder, "--out", maps, "--device", "cpu", *points)
    assert "b.png" in said
    values = np.asarray(Image.open(maps / "a.png"))
    assert (values.shape, values.max()) == (small.shape[:2], 65535)
    assert 0 < (values > 0).mean() < 0.5
    assert "\nODS " in _amg("eval", maps, "--against", tmp_path / "BSDS")
    result = _kept(maps, "BSDS-edges")
    assert result["edges"]["n_images"] == 2
    assert len(result["edges"]["recall"]) == 99


def test_unreadable_photos_are_named_and_drawn_ones_are_not_drawn_again(tmp_path, monkeypatch):
    drawn = []

    def one_mask(generator, image):
        drawn.append(image.shape)
        mask = np.zeros(image.shape[:2], bool)
        mask[5:9, 5:9] = True
        return [(mask.astype(np.float32), mask)]

    monkeypatch.setattr(edges, "make_generator", lambda config: None)
    monkeypatch.setattr(edges, "generate_soft", one_mask)
    folder, maps = make_folder(tmp_path / "photos", 3), tmp_path / "maps"
    whole = (folder / "001.png").read_bytes()
    (folder / "001.png").write_bytes(whole[:300])
    said = _amg("edges", folder, "--out", maps, code=3)
    assert "warning: left out:" in said
    assert "001.png: " in said
    assert sorted(path.name for path in maps.glob("*.png")) == ["000.png", "002.png"]
    (folder / "001.png").write_bytes(whole)
    (folder / "masks" / "report").mkdir(parents=True)  # a run, with its page
    (folder / "masks" / "report" / "003.png").write_bytes(whole)
    for name in ("plan.json", "inputs.parquet"):
        (folder / "masks" / name).write_text("{}")
    _amg("edges", folder, "--out", maps)
    assert len(list(maps.glob("*.png"))) == len(drawn) == 3
    other = ["--set", "generator.points_per_side=3"]
    said = _amg("edges", folder, "--out", maps, *other, code=2)
    assert "another kind (generator.points_per_side: 16 planned, 3 now)" in said
    said = _amg("edges", folder, "--out", folder, code=2)
    assert "holds pictures, and does not say what they are" in said
    (maps / "edges.json").write_text("{")
    assert "edges.json: not JSON" in _amg("edges", folder, "--out", maps, code=2)
    assert len(drawn) == 3


def test_photos_of_the_same_name_have_no_edge_maps(tmp_path):
    make_folder(tmp_path / "a", 1)
    make_folder(tmp_path / "b", 1)
    said = _amg("edges", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "maps", code=2)
    assert "two have the same name" in said
    assert not (tmp_path / "maps").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--against", "{tmp}/none.json"], "none.json: not a .json file of instances"),
        (["--against", "{tmp}"], "not a .json file of instances"),
        (["--against", "{truth}", "--max-masks", "1,x"], "--max-masks '1,x': expected numbers"),
        (["--against", "{truth}", "--max-masks", "0"], "from 1 on"),
        (["--against", "{truth}", "--rank", "colour"], "colour"),
        (["--against", "{other}"], "no image of the run is in the ground truth: here '000.png'"),
        (["--against", "{broken}"], "005.png: annotation 5: its outline is far outside"),
    ],
)
def test_what_cannot_be_compared_is_named(out, bits, tmp_path, options, said):
    other = {f"other{name}": own for name, own in bits.items()}
    broken = _truth(bits)
    broken["annotations"][5]["segmentation"] = [[0, 0, 1e8, 0, 0, 9]]
    places = {
        "tmp": tmp_path,
        "truth": write_json(tmp_path / "truth.json", _truth(bits)),
        "other": write_json(tmp_path / "other.json", _truth(other)),
        "broken": write_json(tmp_path / "broken.json", broken),
    }
    assert said in _amg("eval", out, *(o.format(**places) for o in options), code=2)
    assert not Path(out, "evaluation").exists()


def test_without_the_extra_it_is_named(tmp_path):
    code = "import sys; sys.modules['scipy'] = None\nfrom amg.cli import app; app()"
    arguments = [sys.executable, "-c", code, "eval", str(tmp_path), "--against=x"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
    assert "amg eval needs scipy" in done.stderr
    assert "pip install '.[eval]'" in done.stderr
    assert done.returncode == 2


def test_edge_maps_have_no_other_ground_truth(tmp_path, bits):
    truth = write_json(tmp_path / "truth.json", _truth(bits))
    assert "holds no run" in _amg("eval", tmp_path, "--against", truth, code=2)
    write_mat(tmp_path / "a.mat", np.ones((3, 4), int))
    said = _amg("eval", tmp_path, "--against", tmp_path, code=2)
    assert "neither a run nor edge maps" in said
