"""Each form of prompts gives the same columns, and names what is wrong with it."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from amg.errors import ConfigError
from amg.prompts import coco, json_items
from amg.prompts.checks import in_pixels
from amg.prompts.columns import PromptsHash, to_prompts
from amg.prompts.files import open_prompts
from amg.prompts.json_items import JsonItems
from amg.records import Prompt


def _read(path):
    """(image, prompt) pairs; shares are those of an image of 100 x 200."""
    pairs = []
    for batch in open_prompts(str(path)).read():
        images = batch.column("image").to_pylist()
        for image, (prompt, is_share) in zip(images, to_prompts(batch), strict=True):
            pairs.append((image, in_pixels(prompt, (100, 200)) if is_share else prompt))
    return pairs


def _save(path, text):
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return path


BOX = {"box_xyxy": (1.0, 2.0, 4.0, 6.0)}
ANNOTATIONS = {
    "info": {"year": [2014, {"month": 5}]},
    "annotations": [
        {"id": 9, "image_id": 2, "category_id": 18, "bbox": [1, 2, 3, 4], "iscrowd": 0},
        {"id": 8, "image_id": 1, "category_id": 7, "keypoints": [5, 6, 2, 0, 0, 0, 7.5, 8, 1]},
    ],
    "images": [
        {"id": 1, "file_name": "a/one.jpg"},
        {"id": 2, "coco_url": "http://images.cocodataset.org/val2017/two.jpg"},
    ],
    "categories": [{"id": 18, "name": "dog"}, {"id": 5, "name": "cow"}],
}


@pytest.mark.parametrize("is_last", [True, False], ids=["annotations last", "first"])
def test_annotations_of_coco(tmp_path, is_last, monkeypatch):
    monkeypatch.setattr(json_items, "_CHUNK_BYTES", 7)
    monkeypatch.setattr(coco, "BATCH", 1)
    tree = dict(ANNOTATIONS)
    if is_last:
        tree["annotations"] = tree.pop("annotations")
    path = _save(tmp_path / "instances.json", tree)
    points = {"points_xy": ((5.0, 6.0), (7.5, 8.0)), "labels": (1, 1)}
    assert _read(path) == [
        ("two.jpg", Prompt(**BOX, prompt_id="9", category="dog")),
        ("a/one.jpg", Prompt(**points, prompt_id="8", category="7")),
    ]
    assert open_prompts(str(path)).categories == {"dog": 18, "cow": 5}


ENTRIES = [
    {"image_id": 139, "category_id": 18, "bbox": [1.0, 2.0, 3.0, 4.0], "score": 0.5},
    {"image_id": 140, "category": "dog", "points": [[5, 6], [7, 8]], "labels": [1, 0]},
    {"file_name": "x.jpg", "box_xyxy": [1, 2, 4, 6], "prompt_id": "mine"},
]
EXPECTED = [
    ("139", Prompt(**BOX, prompt_id="0", category="18", score=0.5)),
    (
        "140",
        Prompt(points_xy=((5.0, 6.0), (7.0, 8.0)), labels=(1, 0), prompt_id="1", category="dog"),
    ),
    ("x.jpg", Prompt(**BOX, prompt_id="mine")),
]


def test_annotations_about_images_that_the_file_does_not_have_are_about_none(tmp_path):
    """Their numbers are the file's own: a planned 000099.jpg is not meant."""
    stranger = {"id": 1, "image_id": 99, "bbox": [1, 2, 3, 4]}
    tree = {**ANNOTATIONS, "annotations": [stranger, ANNOTATIONS["annotations"][0]]}
    found = _read(_save(tmp_path / "instances.json", tree))
    assert [image for image, _ in found] == ["image_id 99", "two.jpg"]


def test_results_of_coco_and_lines(tmp_path):
    assert _read(_save(tmp_path / "results.json", ENTRIES)) == EXPECTED
    lines = "\n".join(map(json.dumps, ENTRIES)) + "\n\n"
    assert _read(_save(tmp_path / "prompts.jsonl", lines)) == EXPECTED


def _tables(path, table):
    """The same table as Parquet, Arrow file and stream."""
    pq.write_table(table, path / "t.parquet")
    yield path / "t.parquet"
    for name, new in (("t.arrow", pa.ipc.new_file), ("s.arrow", pa.ipc.new_stream)):
        with new(path / name, table.schema) as writer:
            writer.write_table(table)
        yield path / name


def test_tables_of_boxes(tmp_path):
    columns = {
        "file_name": pa.array(["a.jpg", "b.jpg"]).dictionary_encode(),
        "bbox": pa.array([[1, 2, 3, 4], [0.5, 0, 2, 2]], pa.list_(pa.float64())),
        "category": ["cat", None],
        "score": [0.5, 0.25],
        "prompt_id": [17, 18],
        "other": [b"", b""],
    }
    expected = [
        ("a.jpg", Prompt(**BOX, prompt_id="17", category="cat", score=0.5)),
        ("b.jpg", Prompt(box_xyxy=(0.5, 0, 2.5, 2), prompt_id="18", score=0.25)),
    ]
    for path in _tables(tmp_path, pa.table(columns)):
        assert _read(path) == expected, path


def test_tables_of_boxes_and_points(tmp_path):
    columns = {
        "image_id": [139, 140, 141],
        "box_xyxy": pa.array([[1, 2, 4, 6], None, [9, 9, 3, 3]], pa.list_(pa.int32(), 4)),
        "points": [None, [[5.0, 6.0], [7.0, 8.0]], [[1.0, 1.0]]],
        "labels": [None, [1, 0], None],
    }
    expected = [
        ("139", Prompt(**BOX, prompt_id="0")),
        ("140", Prompt(points_xy=((5.0, 6.0), (7.0, 8.0)), labels=(1, 0), prompt_id="1")),
        ("141", Prompt((9.0, 9, 3, 3), ((1.0, 1.0),), (1,), prompt_id="2")),
    ]
    for path in _tables(tmp_path, pa.table(columns)):
        assert _read(path) == expected, path


def test_csv(tmp_path):
    text = (
        "image_id,bbox,points,category,score,prompt_id\n"
        '007,"[1, 2, 3, 4]",,cat,0.5,01\n'
        '8,,"[[5, 6]]",,,\n'
    )
    assert _read(_save(tmp_path / "p.csv", text)) == [
        ("007", Prompt(**BOX, prompt_id="01", category="cat", score=0.5)),
        ("8", Prompt(points_xy=((5.0, 6.0),), labels=(1,), prompt_id="1")),
    ]


def test_yolo_labels(tmp_path):
    labels = tmp_path / "set" / "labels" / "val"
    labels.mkdir(parents=True)
    _save(tmp_path / "set" / "data.yaml", "names: {0: cat, 1: dog}\ntrain: images/train")
    _save(tmp_path / "set" / "train.txt", "images/a.jpg")
    _save(labels / "b.txt", "1 0.5 0.5 0.2 0.1\n\n0 0.5 0.5 1 1 0.75\n")
    _save(labels / "a.txt", "7 0.1 0.2 0.3 0.2 0.3 0.6\n")
    _save(labels / "classes.txt", "cat\ndog")
    found = _read(tmp_path / "set")
    assert [image for image, _ in found] == ["val/a", "val/b", "val/b"]
    boxes = [prompt.box_xyxy for _, prompt in found]
    assert np.allclose(boxes, [(20, 20, 60, 60), (80, 45, 120, 55), (0, 0, 200, 100)])
    assert [(p.prompt_id, p.category, p.score) for _, p in found] == [
        ("0", "7", None),
        ("0", "dog", None),
        ("2", "cat", 0.75),
    ]
    assert open_prompts(str(tmp_path / "set")).categories == {"cat": 1, "dog": 2}
    assert [image for image, _ in _read(labels)] == ["a", "b", "b"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", [{"image_id": 1, "bbox": [1, 2, 3]}], r"\[0\]: bbox: expected 4 numbers"),
        ("b.json", [{"bbox": [1, 2, 3, 4]}], r"\[0\]: neither image_id nor file_name"),
        ("c.json", '[{"image_id": 1}, {"image', "damaged JSON"),
        ("e.json", {"images": [{"file_name": "a"}]}, r"images\[0\]: no 'id'"),
        ("f.json", [{"image_id": 1, "score": "high"}], r"\[0\]: score"),
        ("g.jsonl", '{"image_id": 1}\n{', "line 2: damaged JSON"),
        ("h.csv", "image_id,category\n1,cat\n", "no column box_xyxy, bbox, points"),
        ("i.csv", 'image_id,bbox\n1,"[1, 2"\n', "row 0: bbox: .* is no list"),
        ("j.csv", 'bbox\n"[1, 2, 3, 4]"\n', "no column image_id or file_name"),
        ("k.parquet", "PAR1", "damaged table"),
        ("l.png", "", "expected a folder of YOLO labels, a run, or a file"),
        ("m.json", [{"image_id": 1, "points": [[1, 2]], "labels": []}], "0 labels of 1 points"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, name, content, said):
    path = _save(tmp_path / name, content)
    with pytest.raises(ConfigError, match=rf"prompts: '.*{name}': .*{said}"):
        _read(path)


def test_a_wrong_label_is_named(tmp_path):
    _save(tmp_path / "a.txt", "0 0.5 0.5 0.1 0.1\n0 0.5\n")
    with pytest.raises(ConfigError, match=r"a\.txt: line 2: 2 words"):
        _read(tmp_path)


def test_the_hash_knows_every_value_and_no_batches(tmp_path):
    def sha256(entries, size=2**16):
        digest = PromptsHash()
        coco.BATCH, before = size, coco.BATCH
        for batch in open_prompts(str(_save(tmp_path / "p.json", entries))).read():
            digest.add(batch)
        coco.BATCH = before
        return digest.sha256()

    assert sha256(ENTRIES) == sha256(ENTRIES, 1) == sha256(ENTRIES, 2)
    changes = [
        {"bbox": [1.0, 2.0, 3.0, 5.0]},
        {"score": 0.25},
        {"score": None},
        {"image_id": 13},
        {"prompt_id": "00"},
        {"points": [[1, 1]]},
        {"category": "18 "},
    ]
    others = {sha256([{**ENTRIES[0], **change}, *ENTRIES[1:]]) for change in changes}
    assert len(others | {sha256(ENTRIES), sha256(ENTRIES[:2])}) == len(changes) + 2


@pytest.mark.parametrize("chunk", [1, 2, 5, 1000])
def test_items_of_json_come_one_by_one(chunk, monkeypatch):
    monkeypatch.setattr(json_items, "_CHUNK_BYTES", chunk)
    tree = {"n": -12.5e3, "list": [1, 'ü]\\"', [2, {"a": []}], None, True], "": {"x": "}"}}
    file = JsonItems(io.BytesIO("\ufeff".encode() + json.dumps(tree, ensure_ascii=False).encode()))
    found = {}
    for name in file.members():
        found[name] = list(file.items()) if name == "list" else file.value()
    assert found == tree
