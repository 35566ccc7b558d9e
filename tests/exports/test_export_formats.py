"""What each format says, by its reader's library or by its rules."""

import csv
import io
import json
import zipfile
from dataclasses import replace

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO

import amg
from amg.errors import ConfigError
from amg.exports.text import csv_lines
from amg.ops import polygons
from amg.ops.label_map import paint
from tests.exports.pictures import (
    SIZE_HW,
    bits_of,
    blob,
    contents,
    make_mask,
    make_row,
    make_run,
    rows,
    shape,
)

ROWS = {row.image_id: row for row in rows()}
READ = [row for row in rows() if row.height is not None]
N_MASKS = sum(len(row.masks) for row in READ)


def _iou(a, b):
    return (a & b).sum() / (a | b).sum()


def _index(folder):
    with (folder / "images.csv").open(newline="") as file:
        return {line["image_id"]: line for line in csv.DictReader(file)}


@pytest.mark.parametrize("segmentation", ["rle", "polygons"])
def test_pycocotools_reads_the_same_masks(run, tmp_path, segmentation):
    report = amg.export(run, "coco", tmp_path / "out", segmentation=segmentation)
    assert (report.images, report.masks, report.failed) == (4, N_MASKS, {"decode_error": 1})
    coco = COCO(tmp_path / "out" / "instances.json")
    assert [image["file_name"] for image in coco.imgs.values()] == [row.image_id for row in READ]
    next_id = 1
    for image in coco.imgs.values():
        row = ROWS[image["file_name"]]
        assert (image["height"], image["width"]) == SIZE_HW
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        for annotation, mask, bits in zip(annotations, row.masks, bits_of(row), strict=True):
            found = coco.annToMask(annotation).astype(bool)
            np.testing.assert_array_equal(found, bits)
            assert annotation["id"] == next_id
            assert annotation["area"] == bits.sum()
            encoded = coco_masks.encode(np.asfortranarray(bits, np.uint8))
            assert annotation["bbox"] == coco_masks.toBbox(encoded).tolist()
            assert np.float32(annotation["score"]) == np.float32(mask.predicted_iou)
            assert annotation["predicted_iou"] == annotation["score"]
            assert np.float32(annotation["stability_score"]) == np.float32(mask.stability_score)
            assert (annotation["category_id"], annotation["iscrowd"]) == (1, 0)
            next_id += 1
    assert coco.cats[1]["name"] == "object"
    assert image["id"] == 5, "an image's id is its place among the planned ones"


def test_scores_are_written_as_short_as_32_bits_allow(tmp_path):
    run = make_run(tmp_path / "run", [make_row("a.jpg", [make_mask(blob(0), 0.9)])])
    amg.export(run, "coco", tmp_path / "out")
    assert '"score":0.9,' in (tmp_path / "out" / "instances.json").read_text()


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("id", "a/b c.jpg"), ("uri", "s3://bucket/x/b c.jpg"), ("name", "b c.jpg")],
)
def test_file_names_follow_the_rule(tmp_path, rule, expected):
    row = make_row("a/b c.jpg", [make_mask(blob(0))], uri="s3://bucket/x/b c.jpg")
    amg.export(make_run(tmp_path / "run", [row]), "coco", tmp_path / "out", file_name=rule)
    image = json.loads((tmp_path / "out" / "instances.json").read_bytes())["images"][0]
    assert image["file_name"] == expected
    assert (image["source_id"], image["uri"]) == ("a/b c.jpg", "s3://bucket/x/b c.jpg")


def test_coco_in_several_files_is_the_same_in_pieces(run, tmp_path):
    amg.export(run, "coco", tmp_path / "one")
    amg.export(run, "coco", tmp_path / "some", images_per_file=2)
    whole = json.loads((tmp_path / "one" / "instances.json").read_bytes())
    names = sorted(path.name for path in (tmp_path / "some").glob("*.json"))
    assert names == [f"instances-{i:05d}.json" for i in range(3)]
    pieces = [json.loads((tmp_path / "some" / name).read_bytes()) for name in names]
    for key in ("images", "annotations"):
        assert [entry for piece in pieces for entry in piece[key]] == whole[key]
    assert [len(piece["images"]) for piece in pieces] == [1, 2, 1]


def test_sa1b_has_the_fields_of_the_dataset_and_no_others(run, tmp_path):
    amg.export(run, "sa1b", tmp_path)
    for row in READ:
        name = row.image_id.rpartition(".")[0]
        values = json.loads((tmp_path / f"{name}.json").read_bytes())
        assert set(values) == {"image", "annotations"}
        assert set(values["image"]) == {"image_id", "width", "height", "file_name"}
        assert values["image"]["file_name"] == row.image_id
        for found, mask, bits in zip(values["annotations"], row.masks, bits_of(row), strict=True):
            assert set(found) == {
                *("id", "segmentation", "bbox", "area", "predicted_iou", "stability_score"),
                *("crop_box", "point_coords"),
            }
            np.testing.assert_array_equal(coco_masks.decode(found["segmentation"]), bits)
            assert found["bbox"] == list(mask.bbox_xywh)
            assert found["crop_box"] == [0, 0, 80, 60]
            assert found["point_coords"] == [list(mask.point_xy)]
    assert _index(tmp_path)["two.jpg"]["file"] == "two.json"


@pytest.mark.parametrize("as_pixels", [np.round, np.floor])
def test_yolo_lines_are_drawn_as_the_masks(run, tmp_path, as_pixels):
    report = amg.export(run, "yolo", tmp_path)
    assert yaml.safe_load((tmp_path / "data.yaml").read_text()) == {
        "train": "images",
        "val": "images",
        "names": {0: "object"},
    }, "a `path` would be taken from the reader's working directory"
    n_several = n_holes = 0
    for row in READ:
        lines = (tmp_path / _index(tmp_path)[row.image_id]["file"]).read_text().splitlines()
        for line, mask, bits in zip(lines, row.masks, bits_of(row), strict=True):
            kind, *numbers = line.split()
            points = np.array(numbers, float).reshape(-1, 2)
            assert kind == "0"
            assert len(points) >= 3
            assert (points >= 0).all()
            assert (points <= 1).all()
            drawn = np.zeros(SIZE_HW, np.uint8)
            cv2.fillPoly(drawn, [as_pixels(points * (80, 60)).astype(np.int32)], 1)
            parts = polygons.trace_rle(mask.rle, "centres")
            n_several += len(parts) > 1
            n_holes += any(part.holes for part in parts)
            assert drawn[bits].all()
            if len(parts) == 1:
                np.testing.assert_array_equal(drawn.astype(bool), bits)
    assert report.notes == {
        "masks with holes, joined by bridges": n_holes,
        "masks of several parts, joined by bridges": n_several,
    }


@pytest.mark.parametrize("overlap", ["smaller-on-top", "score"])
def test_label_maps_number_the_masks_of_the_row(run, tmp_path, overlap):
    report = amg.export(run, "label-map", tmp_path, overlap=overlap)
    n_hidden = 0
    for row in READ:
        found = cv2.imread(tmp_path / _index(tmp_path)[row.image_id]["file"], cv2.IMREAD_UNCHANGED)
        assert found.dtype == np.uint16
        numbers = list(range(1, len(row.masks) + 1))
        np.testing.assert_array_equal(found, paint(row.masks, numbers, SIZE_HW, overlap))
        n_hidden += len(row.masks) - len(set(np.unique(found)) - {0})
    assert n_hidden > 0
    assert report.notes == {"masks wholly under others": n_hidden}


def test_more_masks_than_16_bits_number_refuse_that_image_alone(tmp_path):
    mask = make_mask(shape("one pixel"))
    many = make_row("many.jpg", [mask] * (2**16 - 1) + [replace(mask, predicted_iou=0.99)])
    run = make_run(tmp_path / "run", [make_row("a.jpg", [mask]), many, make_row("b.jpg", [mask])])
    # Its best mask is the last one, and keeps its number.
    report = amg.export(run, "label-map", tmp_path / "out", max_masks_per_image=1)
    assert (report.images, report.refused) == (2, 1)
    assert report.problems == ["many.jpg: mask 65536: a label map has numbers up to 65535"]
    assert set(contents(tmp_path / "out")) == {"a.png", "b.png", "images.csv"}


def test_panoptic_has_the_same_segments_in_the_png_and_in_the_json(run, tmp_path):
    amg.export(run, "panoptic", tmp_path)
    values = json.loads((tmp_path / "annotations" / "panoptic_default.json").read_bytes())
    images = {image["id"]: image for image in values["images"]}
    assert len(values["annotations"]) == len(images) == len(READ)
    for annotation in values["annotations"]:
        row = ROWS[images[annotation["image_id"]]["file_name"]]
        path = tmp_path / "annotations" / "panoptic_default" / annotation["file_name"]
        rgb = np.asarray(Image.open(path)).astype(int)
        ids = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
        numbers = list(range(1, len(row.masks) + 1))
        np.testing.assert_array_equal(ids, paint(row.masks, numbers, SIZE_HW, "smaller-on-top"))
        found = {segment["id"]: segment for segment in annotation["segments_info"]}
        assert set(found) == set(np.unique(ids)) - {0}
        for number, segment in found.items():
            assert segment["area"] == (ids == number).sum()


def test_large_segment_ids_are_colours():
    from amg.exports.panoptic import _colours

    np.testing.assert_array_equal(_colours(np.array([[0x030201]])), [[[1, 2, 3]]])


def test_a_png_a_mask_as_the_original_script_writes_them(run, tmp_path):
    amg.export(run, "png", tmp_path)
    for row in READ:
        folder = tmp_path / _index(tmp_path)[row.image_id]["file"]
        with (folder / "metadata.csv").open(newline="") as file:
            table = list(csv.DictReader(file))
        assert len(list(folder.glob("*.png"))) == len(row.masks)
        for i, (line, mask, bits) in enumerate(zip(table, row.masks, bits_of(row), strict=True)):
            pixels = cv2.imread(folder / f"{i}.png", cv2.IMREAD_UNCHANGED)
            np.testing.assert_array_equal(pixels, bits * np.uint8(255))
            assert list(line) == [
                *("id", "area", "bbox_x0", "bbox_y0", "bbox_w", "bbox_h"),
                *("point_input_x", "point_input_y", "predicted_iou", "stability_score"),
                *("crop_box_x0", "crop_box_y0", "crop_box_w", "crop_box_h"),
            ]
            assert int(line["id"]) == i
            assert int(line["area"]) == mask.area
            assert np.float32(line["predicted_iou"]) == np.float32(mask.predicted_iou)


def _tasks(folder):
    return json.loads((folder / "tasks.json").read_bytes())


def test_label_studio_polygons_are_percents_of_the_image(run, tmp_path):
    report = amg.export(run, "label-studio", tmp_path, tolerance=0)
    for task, row in zip(_tasks(tmp_path), READ, strict=True):
        assert task["data"] == {"image": row.uri, "image_id": row.image_id}
        (prediction,) = task["predictions"]
        assert prediction["model_version"] == "synthetic"
        regions = prediction["result"]
        assert len({region["id"] for region in regions}) == len(regions)
        first = 0
        for mask, bits in zip(row.masks, bits_of(row), strict=True):
            n_parts = len(polygons.trace_rle(mask.rle, "borders"))
            mine = regions[first : first + n_parts]
            first += n_parts
            loops = [np.array(r["value"]["points"]) * (0.8, 0.6) for r in mine]
            objects = [np.ravel(loop).tolist() for loop in loops]
            found = coco_masks.merge(coco_masks.frPyObjects(objects, *SIZE_HW))
            np.testing.assert_array_equal(coco_masks.decode(found), bits)
            for region in mine:
                assert (region["original_width"], region["original_height"]) == (80, 60)
                assert region["value"]["polygonlabels"] == ["object"]
        assert first == len(regions)
    assert report.notes["masks of several parts, each a region"] > 0


def test_few_points_for_people_are_near_the_mask(tmp_path):
    bits = np.zeros((200, 200), bool)
    cv2.circle(view := bits.view(np.uint8), (100, 90), 60, 1, -1)
    run = make_run(tmp_path / "run", [make_row("a.jpg", [make_mask(bits)], size_hw=(200, 200))])
    amg.export(run, "label-studio", tmp_path / "out")
    (region,) = _tasks(tmp_path / "out")[0]["predictions"][0]["result"]
    assert len(region["value"]["points"]) < 100
    objects = [(np.array(region["value"]["points"]) * 2).ravel().tolist()]
    found = coco_masks.decode(coco_masks.merge(coco_masks.frPyObjects(objects, 200, 200)))
    assert _iou(found.astype(bool), view.astype(bool)) > 0.98


def test_label_studio_takes_fifty_brushes_unless_told(tmp_path):
    masks = [make_mask(blob(i), 0.3 + i / 100) for i in range(60)]
    run = make_run(tmp_path / "run", [make_row("a.jpg", masks)])
    report = amg.export(run, "label-studio", tmp_path / "some", segmentation="rle")
    assert (report.masks, report.masks_left_out) == (50, 10)
    regions = _tasks(tmp_path / "some")[0]["predictions"][0]["result"]
    assert [region["id"] for region in regions] == [str(i) for i in range(11, 61)], "best, in order"
    options = {"segmentation": "rle", "max_masks_per_image": 1000}
    assert amg.export(run, "label-studio", tmp_path / "all", **options).masks == 60


def test_label_studio_names_and_addresses(tmp_path):
    row = make_row("a b/ü&.jpg", [make_mask(blob(0))])
    amg.export(
        make_run(tmp_path / "run", [row]),
        "label-studio",
        tmp_path / "out",
        image_url="/data/local-files/?d=photos/",
        label='<"things">',
        from_name="from",
        to_name="to",
    )
    (task,) = _tasks(tmp_path / "out")
    assert task["data"]["image"] == "/data/local-files/?d=photos/a%20b/%C3%BC%26.jpg"
    region = task["predictions"][0]["result"][0]
    assert (region["from_name"], region["to_name"]) == ("from", "to")
    assert region["value"]["polygonlabels"] == ['<"things">']
    config = (tmp_path / "out" / "config.xml").read_text()
    assert 'name="from" toName="to"' in config
    assert "&lt;" in config


@pytest.mark.parametrize("segmentation", ["rle", "polygons"])
def test_cvat_gets_a_zip_of_coco(run, tmp_path, segmentation):
    amg.export(run, "cvat", tmp_path, segmentation=segmentation)
    with zipfile.ZipFile(tmp_path / "cvat.zip") as archive:
        assert archive.testzip() is None
        values = json.loads(archive.read("annotations/instances_default.json"))
    (tmp_path / "found.json").write_text(json.dumps(values))
    coco = COCO(tmp_path / "found.json")
    for image in coco.imgs.values():
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        for found, bits in zip(annotations, bits_of(ROWS[image["file_name"]]), strict=True):
            np.testing.assert_array_equal(coco.annToMask(found), bits)
            if segmentation == "rle":
                assert isinstance(found["segmentation"]["counts"], list)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"min_predicted_iou": 0.65}, [1, 2, 3]),
        ({"min_stability": 0.65}, [3, 4]),
        ({"max_masks_per_image": 2}, [1, 2]),
        ({"min_predicted_iou": 0.75, "max_masks_per_image": 1, "min_stability": 0.55}, [2]),
        ({"min_area": SIZE_HW[0] * SIZE_HW[1]}, []),
    ],
)
def test_masks_that_are_left_out_change_no_ids(run, tmp_path, options, kept):
    report = amg.export(run, "coco", tmp_path, limit=1, **options)
    values = json.loads((tmp_path / "instances.json").read_bytes())
    assert [annotation["id"] for annotation in values["annotations"]] == kept
    assert (report.images, report.masks, report.masks_left_out) == (1, len(kept), 4 - len(kept))


def test_parents_are_named_by_their_ids_and_skip_what_is_left_out(tmp_path):
    scores, parents = (0.9, 0.6, 0.8), (None, 0, 1)
    family = [
        make_mask(blob(i), score, parent=parent)
        for i, (score, parent) in enumerate(zip(scores, parents, strict=True))
    ]
    first = make_row("first.jpg", [make_mask(blob(9))])
    run = make_run(tmp_path / "run", [first, make_row("a.jpg", family)])
    for least, expected in ((0, {2: None, 3: 2, 4: 3}), (0.7, {2: None, 4: 2})):
        amg.export(run, "coco", tmp_path / str(least), min_predicted_iou=least)
        values = json.loads((tmp_path / str(least) / "instances.json").read_bytes())
        found = {a["id"]: a["parent_id"] for a in values["annotations"] if a["image_id"] == 2}
        assert found == expected


@pytest.mark.parametrize("to", ["coco", "sa1b", "yolo", "label-map", "panoptic", "png", "cvat"])
def test_empty_masks_and_runs_break_nothing(tmp_path, to):
    empty = make_mask(np.zeros(SIZE_HW, bool))
    run = make_run(tmp_path / "run", [make_row("a.jpg", [empty, make_mask(blob(0))])])
    report = amg.export(run, to, tmp_path / "out")
    assert (report.images, report.refused) == (1, 0)
    nothing = make_run(tmp_path / "nothing", [])
    assert amg.export(nothing, to, tmp_path / "none").images == 0


def test_a_damaged_mask_refuses_its_image_and_names_it(tmp_path):
    bad = make_mask(blob(0))
    bad = replace(bad, rle=replace(bad.rle, counts="0"))
    run = make_run(
        tmp_path / "run", [make_row("bad.jpg", [bad]), make_row("a.jpg", [make_mask(blob(0))])]
    )
    for to in ("coco", "sa1b", "yolo", "label-map", "png", "label-studio", "cvat"):
        report = amg.export(run, to, tmp_path / to)
        assert (report.images, report.refused) == (1, 1), to
        assert report.problems[0].startswith("bad.jpg: counts:")


@pytest.mark.parametrize(
    ("to", "options", "message"),
    [
        ("cocoa", {}, "format 'cocoa': expected one of coco, sa1b"),
        ("coco", {"overlap": "score"}, "coco has no option overlap; it has segmentation"),
        ("coco", {"segmentation": "boxes"}, "segmentation: Input should be 'rle' or 'polygons'"),
        ("coco", {"min_predicted_iou": 2}, "min_predicted_iou: Input should be less than or equal"),
        ("yolo", {"tolerance": -1}, "tolerance: Input should be greater than or equal"),
        ("coco", {"limit": 0}, "limit: Input should be greater"),
    ],
)
def test_bad_options_are_named(run, tmp_path, to, options, message):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        amg.export(run, to, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_csv_lines_hold_any_id(tmp_path):
    odd = 'a,"b"\nc.jpg'
    run = make_run(tmp_path / "run", [make_row(odd, [make_mask(blob(0))])])
    amg.export(run, "sa1b", tmp_path / "out")
    text = (tmp_path / "out" / "images.csv").read_text()
    (line,) = csv.DictReader(io.StringIO(text))
    assert line["image_id"] == odd
    assert (tmp_path / "out" / line["file"]).is_file()


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_no_cell_of_a_csv_file_is_a_formula(begin):
    text = csv_lines([[f"{begin}1+cmd", f"a{begin}", -1, -0.5, None]]).decode()
    (cells,) = csv.reader(io.StringIO(text, newline=""))
    assert cells == [f"'{begin}1+cmd", f"a{begin}", "-1", "-0.5", ""]
