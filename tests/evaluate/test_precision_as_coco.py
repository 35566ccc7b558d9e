"""Average precision of categories is that of pycocotools' COCOeval."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from amg.evaluate.coco import CocoJudge
from amg.evaluate.coco_truth import read_coco
from amg.evaluate.precision import category_ids, detect, summarise_precision
from amg.evaluate.ranking import Rank
from amg.evaluate.recall import parse_limits
from amg.ops import rle
from amg.records import Prompt
from tests.evaluate.shapes import annotation, box, coco_tree, mask, row, write_json

SIZE_HW = (9, 12)
NAMES = {3: "cat", 1: "dog", 2: "cow"}
CATEGORIES = [{"id": number, "name": name} for number, name in NAMES.items()]


def _spans(limit):
    pairs = st.tuples(st.integers(0, limit - 1), st.integers(0, limit - 1))
    return pairs.map(lambda ends: (min(ends), max(ends) + 1))


BITS = st.tuples(_spans(SIZE_HW[0]), _spans(SIZE_HW[1])).map(
    lambda spans: box(SIZE_HW, *spans[0], *spans[1])
)
SCORES = st.sampled_from((0.25, 0.5, 0.75))  # few, so that there are ties
MASKS = st.lists(st.tuples(BITS, SCORES, st.sampled_from((*NAMES, 9))), max_size=6)
INSTANCES = st.lists(st.tuples(BITS, st.sampled_from(tuple(NAMES)), st.booleans()), max_size=5)


def _cocoeval(tree, images):
    """AP, AP at 0.5 and at 0.75 of COCOeval, by category; without those that have no instance."""
    truth = COCO()
    truth.dataset = tree
    detections = [
        {
            "image_id": image_id,
            "category_id": number,
            "segmentation": rle.to_coco(rle.encode_masks(bits[None])[0]),
            "score": score,
        }
        for image_id, masks in images.items()
        for bits, score, number in masks
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(detections), "segm")
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][:, :, :, 0, -1]
    found = {number: precision[:, :, k] for k, number in enumerate(judge.params.catIds)}
    return {
        NAMES[number]: (values.mean(), values[0].mean(), values[5].mean())
        for number, values in found.items()
        if values.max() > -1
    }


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(MASKS, INSTANCES), min_size=1, max_size=3))
def test_average_precision_is_that_of_cocoeval(tmp_path_factory, images):
    annotations = [
        annotation(0, image_id, bits, number, iscrowd=int(is_crowd))
        for image_id, (_, instances) in enumerate(images, 1)
        for bits, number, is_crowd in instances
    ]
    annotations = [{**values, "id": i} for i, values in enumerate(annotations, 1)]
    names = {i: (f"{i}.jpg", SIZE_HW) for i in range(1, len(images) + 1)}
    tree = coco_tree(names, annotations, CATEGORIES)
    asked = {i: masks for i, (masks, _) in enumerate(images, 1)}
    if not any(masks for masks in asked.values()):
        return  # COCO.loadRes takes no empty list
    expected = _cocoeval(tree, asked)
    truth = read_coco(write_json(tmp_path_factory.mktemp("truth") / "t.json", tree))
    ids = category_ids([*NAMES.values(), "unknown"], truth.categories)
    judge = CocoJudge(Rank.MEAN, parse_limits([1]), {}, ids)
    scores = []
    for image in reversed(truth.images):  # a run has them in an order of its own
        masks = [
            mask(bits, 0.9, prompt=Prompt(category=NAMES.get(number, "unknown"), score=score))
            for bits, score, number in asked[image.image_id]
        ]
        scores.append(judge(row(image.name, SIZE_HW, masks), image).detections)
    found = {
        line.category: (line.average_precision, line.at_half, line.at_three_quarters)
        for line in summarise_precision(scores, truth.categories)
    }
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, abs=1e-12)


def test_categories_are_known_by_name_or_number():
    assert category_ids(["cat", "1", "no"], NAMES) == {"cat": 3, "1": 1}


def test_no_more_than_a_hundred_masks_of_a_category_count():
    bits = np.ones(SIZE_HW, bool)
    masks = [mask(bits, score / 200, prompt=Prompt(category="cat")) for score in range(150)]
    found = detect(masks, 1, (), (), {"cat": 3})
    assert len(found[3].scores) == 100
    assert found[3].scores[0] == 149 / 200
