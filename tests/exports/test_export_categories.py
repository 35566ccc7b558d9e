"""Runs from prompts: exports say each mask's category, and whose prompt it answers."""

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import amg
from amg.config import load_config
from amg.evaluate.evaluation import evaluate
from amg.ops import rle
from amg.records import Prompt
from pipelines.corpus.run import Run
from tests.exports.pictures import blob, make_mask, make_row, make_run
from tests.pipelines.helpers import QUICK, make_folder
from tests.pipelines.stub import make_prompted_stub

CATEGORIES = {"dog": 18, "cat": 7}
ASKED = ("cat", "dog", None, "cat")


@pytest.fixture(scope="module")
def prompted(tmp_path_factory):
    """One image of four masks, of two categories and of none."""
    masks = []
    for i, category in enumerate(ASKED):
        prompt = Prompt(box_xyxy=(0, 0, 9, 9), prompt_id=f"p{i}", category=category, score=i / 4)
        masks.append(replace(make_mask(blob(i), 0.9), point_xy=None, prompt=prompt))
    folder = tmp_path_factory.mktemp("prompted") / "run"
    row = make_row("one.jpg", masks)
    return make_run(folder, [row], categories=CATEGORIES, has_uncategorised=True)


def test_coco_has_categories_scores_and_prompts(prompted, tmp_path):
    amg.export(prompted, "coco", tmp_path / "out")
    content = json.loads((tmp_path / "out" / "instances.json").read_text())
    assert [(c["id"], c["name"]) for c in content["categories"]] == [
        (7, "cat"),
        (18, "dog"),
        (19, "object"),
    ]
    found = [
        (a["category_id"], a["prompt_id"], a["score"], a["predicted_iou"], a["point_coords"])
        for a in content["annotations"]
    ]
    ids = (7, 18, 19, 7)
    assert found == [(ids[i], f"p{i}", i / 4, 0.9, []) for i in range(4)]


def test_yolo_has_classes(prompted, tmp_path):
    amg.export(prompted, "yolo", tmp_path / "out", label="thing")
    names = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())["names"]
    assert names == {0: "cat", 1: "dog", 2: "thing"}
    lines = (tmp_path / "out" / "labels" / "one.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["0", "1", "2", "0"]


def test_panoptic_has_categories_of_many_colours(prompted, tmp_path):
    amg.export(prompted, "panoptic", tmp_path / "out")
    path = tmp_path / "out" / "annotations" / "panoptic_default.json"
    content = json.loads(path.read_text())
    assert [c["id"] for c in content["categories"]] == [7, 18, 19]
    assert len({tuple(c["color"]) for c in content["categories"]}) == 3
    (annotation,) = content["annotations"]
    ids = {segment["id"]: segment["category_id"] for segment in annotation["segments_info"]}
    assert ids.items() <= {1: 7, 2: 18, 3: 19, 4: 7}.items()
    assert len(ids) > 1


def test_label_studio_has_labels(prompted, tmp_path):
    amg.export(prompted, "label-studio", tmp_path / "out")
    (task,) = json.loads((tmp_path / "out" / "tasks.json").read_text())
    regions = task["predictions"][0]["result"]
    found = {r["id"].partition("-")[0]: r["value"]["polygonlabels"] for r in regions}
    assert found == {"1": ["cat"], "2": ["dog"], "3": ["object"], "4": ["cat"]}
    config = (tmp_path / "out" / "config.xml").read_text()
    assert [f'value="{name}"' in config for name in ("cat", "dog", "object")] == [True] * 3


@pytest.mark.parametrize("to", ["cvat", "sa1b", "png", "label-map"])
def test_other_formats_take_masks_of_boxes(prompted, tmp_path, to):
    report = amg.export(prompted, to, tmp_path / "out")
    assert (report.masks, report.problems) == (4, [])


@pytest.mark.usefixtures("forked_workers")
def test_coco_goes_in_and_out_and_is_evaluated(tmp_path):
    """Boxes of instances that are boxes come back as these instances, whatever their category."""
    folder = make_folder(tmp_path / "photos", 6)
    images = [
        {"id": 70 - i, "file_name": f"{i:03d}.png", "width": 32, "height": 24} for i in range(6)
    ]
    rng = np.random.default_rng(0)
    annotations = []
    for i in range(30):
        x, y, w, h = (int(v) for v in rng.integers(1, 12, 4))
        bits = np.zeros((24, 32), bool)
        bits[y : y + h, x : x + w] = True
        (encoded,) = rle.encode_masks(bits[None])
        annotations.append(
            {
                **{"id": i + 1, "image_id": 70 - i % 6, "category_id": 5 + i % 3 * 4},
                **{"bbox": [x, y, w, h], "area": w * h, "iscrowd": 0},
                "segmentation": rle.to_coco(encoded),
            }
        )
    categories = [{"id": 5 + i * 4, "name": name} for i, name in enumerate("abc")]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    Run(
        [folder],
        tmp_path / "run",
        load_config(None, QUICK),
        prompts=tmp_path / "truth.json",
        make_generator=make_prompted_stub,
    ).execute()
    amg.export(tmp_path / "run", "coco", tmp_path / "out")
    found = json.loads((tmp_path / "out" / "instances.json").read_text())
    assert [(c["id"], c["name"]) for c in found["categories"]] == [(5, "a"), (9, "b"), (13, "c")]
    ids = {image["id"]: image["file_name"] for image in found["images"]}
    truth_ids = {image["file_name"]: image["id"] for image in images}
    results = [{**a, "image_id": truth_ids[ids[a["image_id"]]]} for a in found["annotations"]]
    assert {a["prompt_id"] for a in results} == {str(a["id"]) for a in annotations}
    coco = COCO(tmp_path / "truth.json")
    judge = COCOeval(coco, coco.loadRes(results), "segm")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    assert judge.stats[0] == 1
    ours = evaluate(str(tmp_path / "run"), str(tmp_path / "truth.json")).categories
    assert [(c.category, c.n_instances, c.average_precision) for c in ours] == [
        (name, 10, 1.0) for name in "abc"
    ]
