import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from amg.errors import EvaluationError
from amg.evaluate.coco_truth import annotation_rle, read_coco
from amg.ops import rle
from tests.evaluate.shapes import annotation, box, coco_tree, write_json

SIZE_HW = (20, 30)
BITS = box(SIZE_HW, 2, 10, 5, 25)


def _read(tmp_path, *annotations, **changes):
    tree = {**coco_tree({4: ("a.jpg", SIZE_HW)}, annotations), **changes}
    return read_coco(write_json(tmp_path / "truth.json", tree))


def test_shapes_of_all_three_kinds_become_run_lengths(tmp_path):
    (encoded,) = rle.encode_masks(BITS[None])
    plain = {"size": list(SIZE_HW), "counts": rle.runs(encoded).tolist()}
    outline = [[5, 2, 25, 2, 25, 10, 5, 10]]
    truth = _read(
        tmp_path,
        annotation(1, 4, BITS),
        annotation(2, 4, BITS, segmentation=plain, iscrowd=1),
        annotation(3, 4, BITS, segmentation=outline),
    )
    (image,) = truth.images
    assert [annotation_rle(a, image.size_hw) for a in image.annotations] == [encoded] * 3
    assert [a.is_crowd for a in image.annotations] == [False, True, False]
    assert truth.frequencies == {}


def test_parts_of_an_instance_are_joined(tmp_path):
    parts = [[0, 0, 4, 0, 4, 4, 0, 4], [10, 10, 14, 10, 14, 14, 10, 14]]
    truth = _read(tmp_path, annotation(1, 4, BITS, segmentation=parts))
    found = rle.decode(annotation_rle(truth.images[0].annotations[0], SIZE_HW))
    expected = box(SIZE_HW, 0, 4, 0, 4) | box(SIZE_HW, 10, 14, 10, 14)
    np.testing.assert_array_equal(found, expected)


def test_outlines_that_enclose_nothing_do_not_count(tmp_path):
    parts = [[0, 0, 4, 0, 4, 4, 0, 4], [10, 10, 14, 14], [7, 7]]
    truth = _read(tmp_path, annotation(1, 4, BITS, segmentation=parts))
    found = annotation_rle(truth.images[0].annotations[0], SIZE_HW)
    theirs = coco_mask.merge(coco_mask.frPyObjects(parts, *SIZE_HW))
    assert found == rle.validate(theirs["counts"], SIZE_HW)


def test_images_of_lvis_are_called_as_their_files(tmp_path):
    image = {"id": 9, "coco_url": "http://host/val2017/000000000009.jpg", "height": 2, "width": 3}
    truth = _read(tmp_path, images=[image], categories=[{"id": 1, "frequency": "r"}])
    assert truth.images[0].name == "000000000009.jpg"
    assert truth.frequencies == {1: "rare"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segmentation": [[1, 2, 3]]}, "annotation 1: an outline is not points x, y"),
        ({"segmentation": [[1, 2, 3, 4, 5, None]]}, "annotation 1: an outline is not"),
        ({"segmentation": []}, "annotation 1: segmentation is neither"),
        ({"segmentation": [[1, 2, 3, 4]]}, "annotation 1: no outline has three points"),
        ({"segmentation": {"size": [20, 30], "counts": "0"}}, "annotation 1: counts: sum is 0"),
        ({"segmentation": {"size": [20, 30], "counts": "`"}}, "annotation 1: counts: cut off"),
        ({"area": "x"}, "annotation 1: could not convert string"),
    ],
)
def test_a_damaged_annotation_is_named(tmp_path, changes, message):
    with pytest.raises(EvaluationError, match=message):
        _read(tmp_path, annotation(1, 4, BITS, **changes))


def test_outlines_far_outside_are_refused(tmp_path):
    truth = _read(tmp_path, annotation(1, 4, BITS, segmentation=[[0, 0, 1e9, 0, 0, 5]]))
    with pytest.raises(EvaluationError, match="annotation 1: its outline is far outside"):
        annotation_rle(truth.images[0].annotations[0], SIZE_HW)


def test_run_lengths_of_another_size_are_refused(tmp_path):
    truth = _read(tmp_path, annotation(1, 4, BITS))
    with pytest.raises(EvaluationError, match="annotation 1: not of its image's size"):
        annotation_rle(truth.images[0].annotations[0], (30, 20))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", json.dumps({"annotations": [], "categories": []}), '{"annotations": [{}]}'],
)
def test_what_is_no_ground_truth_is_named(tmp_path, text):
    path = tmp_path / "truth.json"
    path.write_text(text)
    with pytest.raises(EvaluationError, match=r"truth\.json: "):
        read_coco(path)
