from dataclasses import replace

import pytest

from amg.errors import EvaluationError
from amg.evaluate.runs import RunJudge, compare_images, summarise_comparisons
from amg.records import Rle
from tests.evaluate.shapes import box, mask, row

SIZE_HW = (10, 100)
WHOLE = box(SIZE_HW, 0, 10, 0, 50)
NEARLY = box(SIZE_HW, 0, 10, 0, 46)  # IoU 0.92
HALF = box(SIZE_HW, 0, 10, 0, 30)  # IoU 0.6
OTHER = box(SIZE_HW, 0, 10, 60, 100)


def test_a_run_is_itself():
    masks = [mask(WHOLE, 0.9), mask(OTHER, 0.8)]
    summary = summarise_comparisons([compare_images(name, masks, masks) for name in "ab"])
    assert (summary.n_images, summary.n_exact, summary.n_identical) == (2, 2, 4)
    assert (summary.n_found, summary.n_matched) == (4, 4)
    assert (summary.n_missing, summary.n_extra, summary.worst) == (0, 0, ())
    assert (summary.mean_matched_iou, summary.mean_best_iou) == (1, 1)


def test_what_one_has_and_the_other_lacks():
    reference = [mask(WHOLE), mask(OTHER)]
    ours = [mask(HALF), mask(NEARLY), mask(box(SIZE_HW, 0, 1, 0, 100))]
    comparison = compare_images("a", reference, ours)
    assert comparison.best_ious == pytest.approx([0.92, 40 / 460])
    assert comparison.matched_ious == pytest.approx([0.92])  # one to one: not the half as well
    assert (comparison.n_missing, comparison.n_extra) == (1, 2)
    same = compare_images("b", reference, reference)
    summary = summarise_comparisons([same, comparison])
    assert (summary.n_reference, summary.n_ours) == (4, 5)
    assert (summary.n_found, summary.n_matched, summary.n_exact) == (3, 3, 1)
    assert summary.mean_matched_iou == pytest.approx((1 + 1 + 0.92) / 3)
    assert [image.image_id for image in summary.worst] == ["a"]


def test_pairs_are_those_of_the_greatest_sum():
    reference = [mask(WHOLE), mask(HALF)]
    ours = [mask(NEARLY)]
    assert compare_images("a", reference, ours).matched_ious == pytest.approx([0.92])
    # HALF is the only one that finds HALF's place; WHOLE then takes NEARLY.
    found = compare_images("a", reference, [mask(HALF), mask(NEARLY)]).matched_ious
    assert sorted(found) == pytest.approx([0.92, 1.0])


def test_nothing_beside_nothing():
    summary = summarise_comparisons([compare_images("a", [], [])])
    assert (summary.n_exact, summary.mean_best_iou, summary.best_iou_quantiles) == (1, None, {})
    one_sided = summarise_comparisons([compare_images("a", [mask(WHOLE)], [])])
    assert (one_sided.n_missing, one_sided.n_found, one_sided.mean_best_iou) == (1, 0, 0)


def test_rows_are_checked():
    judge = RunJudge()
    mine, others = row("a", SIZE_HW, [mask(WHOLE)]), row("a", SIZE_HW, [mask(NEARLY)])
    assert judge(mine, others).best_ious == pytest.approx([0.92])
    with pytest.raises(EvaluationError, match="10 x 100 is not 100 x 10"):
        judge(mine, row("a", SIZE_HW[::-1]))
    damaged = replace(mask(WHOLE), rle=Rle(SIZE_HW, "0f"))
    with pytest.raises(ValueError, match="counts"):
        judge(row("a", SIZE_HW, [damaged]), others)
    failed = row("a", (1, 1), status="missing")
    failed = replace(failed, height=None, width=None)
    assert judge(failed, others).n_missing == judge(mine, failed).n_extra == 1
