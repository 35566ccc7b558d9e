"""Average recall is that of pycocotools' COCOeval, to the last bit."""

import contextlib
import io
import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from amg.evaluate.coco import CocoJudge
from amg.evaluate.coco_truth import read_coco
from amg.evaluate.ranking import Rank, ranked
from amg.evaluate.recall import parse_limits
from amg.ops import rle
from tests.evaluate.shapes import annotation, box, coco_tree, mask, row, write_json

SIZE_HW = (9, 12)
MAX_MASKS = (1, 2, 4)
GROUPS = ("all", "small", "medium", "large")
CATEGORIES = ({"id": 3, "frequency": "f"}, {"id": 1, "frequency": "r"}, {"id": 2, "frequency": "c"})
# Both sides of the limits of size, and the limits themselves, which belong to two groups.
AREAS = (5.0, 1023.0, 1024.0, 1025.0, 9216.0, 9217.0)


def boxes(limit):
    return st.tuples(st.integers(0, limit - 1), st.integers(0, limit - 1)).map(
        lambda ends: (min(ends), max(ends) + 1)
    )


BITS = st.tuples(boxes(SIZE_HW[0]), boxes(SIZE_HW[1])).map(lambda b: box(SIZE_HW, *b[0], *b[1]))
SCORES = st.sampled_from((0.5, 0.75, 1.0))  # few, so that there are ties
MASKS = st.lists(st.builds(mask, BITS, SCORES, SCORES), max_size=6)
POLYGON = st.lists(st.floats(0, 9), min_size=6, max_size=6).map(lambda xy: [xy])
INSTANCES = st.lists(
    st.tuples(
        BITS,
        st.sampled_from([category["id"] for category in CATEGORIES]),
        st.sampled_from(AREAS),
        st.integers(0, 5).map(lambda n: n == 0),
        st.none() | POLYGON,
    ),
    max_size=5,
)


def _tree(instances_of_images):
    annotations = []
    for image_id, instances in enumerate(instances_of_images, start=1):
        for bits, category_id, area, is_crowd, polygon in instances:
            changes = {"area": area, "iscrowd": int(is_crowd)}
            if polygon is not None and not is_crowd:
                changes["segmentation"] = polygon
            number = len(annotations) + 1
            annotations.append(annotation(number, image_id, bits, category_id, **changes))
    images = {n: (f"{n}.jpg", SIZE_HW) for n in range(1, len(instances_of_images) + 1)}
    return coco_tree(images, annotations, CATEGORIES)


def _cocoeval(tree, masks_of_images, category_id):
    """Recall (T, A, K) of COCOeval; -1 where a group has no instance."""
    truth = COCO()
    truth.dataset = tree
    detections = [
        {
            "image_id": image_id,
            "category_id": category_id,
            "segmentation": rle.to_coco(found.rle),
            "score": (found.predicted_iou + found.stability_score) / 2,
        }
        for image_id, masks in enumerate(masks_of_images, start=1)
        for found in masks
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(detections), "segm")
        evaluation.params.useCats = 0
        evaluation.params.maxDets = list(MAX_MASKS)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["recall"][:, 0]


def _ours(path, masks_of_images):
    truth = read_coco(path)
    judge = CocoJudge(Rank.MEAN, parse_limits(MAX_MASKS), truth.frequencies)
    scores = [
        judge(row(image.name, SIZE_HW, masks), image)
        for image, masks in zip(truth.images, masks_of_images, strict=True)
    ]
    return {(line.group, line.max_masks): line for line in judge.summarise(scores)}


def _check(line, expected):
    if expected[0] == -1:
        assert line.recall is None
        assert line.average_recall is None
    else:
        assert line.recall == tuple(expected)
        assert line.average_recall == expected.mean()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(MASKS, INSTANCES), min_size=1, max_size=3))
def test_random_masks(tmp_path_factory, images):
    masks, instances = zip(*images, strict=True)
    assume(any(masks))  # it refuses an empty list
    tree = _tree(instances)
    path = write_json(tmp_path_factory.mktemp("truth") / "truth.json", tree)
    ours = _ours(path, masks)
    recall = _cocoeval(json.loads(path.read_text()), masks, CATEGORIES[0]["id"])
    for a, group in enumerate(GROUPS):
        for k, max_masks in enumerate(MAX_MASKS):
            _check(ours[group, max_masks], recall[:, a, k])


@pytest.mark.parametrize("categories", [(1, 1), (1, 3), (3, 1)])
@pytest.mark.parametrize("better", [0, 1])
def test_of_equally_similar_instances_the_same_is_taken(tmp_path, categories, better):
    """By category, then by place: what the first mask takes decides what the second finds."""
    halves = [box(SIZE_HW, 0, 9, 0, 6), box(SIZE_HW, 0, 9, 6, 12)]
    masks = [mask(halves[0] | halves[1], 1.0), mask(halves[better], 0.5)]
    instances = [(half, c, 5.0, False, None) for half, c in zip(halves, categories, strict=True)]
    tree = _tree([instances])
    ours = _ours(write_json(tmp_path / "truth.json", tree), [masks])
    recall = _cocoeval(tree, [masks], CATEGORIES[0]["id"])
    for k, max_masks in enumerate(MAX_MASKS):
        _check(ours["all", max_masks], recall[:, 0, k])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(MASKS, INSTANCES), min_size=1, max_size=2))
def test_a_frequency_is_a_ground_truth_of_its_categories_alone(tmp_path_factory, images):
    masks, instances = zip(*images, strict=True)
    assume(any(masks))  # it refuses an empty list
    tree = _tree(instances)
    ours = _ours(write_json(tmp_path_factory.mktemp("truth") / "truth.json", tree), masks)
    for category, name in zip(CATEGORIES, ("frequent", "rare", "common"), strict=True):
        annotations = [a for a in tree["annotations"] if a["category_id"] == category["id"]]
        alone = {**tree, "annotations": annotations, "categories": [category]}
        recall = _cocoeval(json.loads(json.dumps(alone)), masks, category["id"])
        for k, max_masks in enumerate(MAX_MASKS):
            _check(ours[name, max_masks], recall[:, 0, k])


def test_recall_of_three_masks_by_hand(tmp_path):
    size = (10, 100)
    instances = [box(size, 0, 10, 0, 40), box(size, 0, 10, 50, 100)]
    masks = [
        mask(box(size, 0, 10, 0, 32), 0.9),  # IoU 0.8 with the first
        mask(box(size, 0, 10, 0, 40), 0.8),  # the same as the first
        mask(box(size, 0, 10, 70, 100), 0.7),  # IoU 0.6 with the second
    ]
    tree = coco_tree(
        {7: ("a.jpg", size)}, [annotation(n, 7, bits) for n, bits in enumerate(instances)]
    )
    truth = read_coco(write_json(tmp_path / "truth.json", tree))
    judge = CocoJudge(Rank.MEAN, parse_limits([1, 2]), truth.frequencies)
    score = judge(row("a.jpg", size, masks), truth.images[0])
    of_all = {line.max_masks: line for line in judge.summarise([score]) if line.group == "all"}
    # IoU 0.8 is enough at 0.5 to 0.8, seven of ten thresholds; 0.6 at three of them.
    assert of_all[1].average_recall == pytest.approx(0.7 / 2)
    assert of_all[2].average_recall == pytest.approx(1.0 / 2)
    assert of_all[None].average_recall == pytest.approx((1.0 + 0.3) / 2)
    assert of_all[1].mean_best_iou == pytest.approx(0.8 / 2)
    assert of_all[None].mean_best_iou == pytest.approx((1.0 + 0.6) / 2)
    assert score.masks[:, 2] == pytest.approx([0.8, 1.0, 0.6])


def test_masks_are_ranked_by_the_score_asked_for():
    first, second = (
        mask(box(SIZE_HW, 0, 1, 0, 1), 0.9, 0.5),
        mask(box(SIZE_HW, 1, 2, 0, 1), 0.6, 0.9),
    )
    third = mask(box(SIZE_HW, 2, 3, 0, 1), 0.7, float("nan"))
    masks = [third, second, first]
    assert ranked(masks, Rank.PREDICTED_IOU) == [first, third, second]
    assert ranked(masks, Rank.STABILITY) == [second, first, third]
    assert ranked(masks, Rank.MEAN) == [second, first, third]
    assert ranked([], Rank.MEAN) == []
