import numpy as np
import pytest
from scipy.io import savemat

from amg.errors import EvaluationError
from amg.evaluate.bsds import BsdsJudge
from amg.evaluate.bsds_truth import list_bsds, read_drawings
from amg.evaluate.ranking import Rank
from amg.evaluate.recall import parse_limits
from amg.evaluate.shards import OtherSizeError
from tests.evaluate.shapes import box, mask, row

SIZE_HW = (20, 40)


def write_mat(path, *labels, boundaries=None):
    """A file of annotators' label maps as BSDS500 has it."""
    cells = np.empty((1, len(labels)), dtype=object)
    for i, values in enumerate(labels):
        edges = np.zeros(values.shape, np.uint8) if boundaries is None else boundaries[i]
        cells[0, i] = {"Segmentation": values.astype(np.uint16), "Boundaries": edges}
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"groundTruth": cells})
    return path


def _halves():
    return np.where(box(SIZE_HW, 0, 20, 20, 40), 7, 1)


def _score(path, masks, limits=(1,)):
    judge = BsdsJudge(Rank.MEAN, parse_limits(limits))
    score = judge(row("a", SIZE_HW, masks), path)
    return score, judge.summarise([score])


def test_perfect_masks_score_one(tmp_path):
    path = write_mat(tmp_path / "a.mat", _halves(), _halves())
    score, (_, of_all) = _score(path, [mask(_halves() == value) for value in (1, 7)])
    assert (of_all.covering, of_all.average_recall, of_all.mean_best_iou) == (1, 1, 1)
    assert (of_all.n_regions, of_all.masks_per_image) == (4, 2)
    assert score.masks[:, 2].tolist() == [1, 1]


def test_covering_weighs_regions_by_their_share(tmp_path):
    quarter = box(SIZE_HW, 0, 20, 30, 40)
    path = write_mat(tmp_path / "a.mat", quarter.astype(int))
    _, (_, of_all) = _score(path, [mask(~quarter)])
    # The mask covers the first region wholly, the second not at all.
    assert of_all.covering == pytest.approx(0.75)


def test_the_best_mask_counts_and_annotators_are_averaged(tmp_path):
    whole = np.ones(SIZE_HW, dtype=int)
    path = write_mat(tmp_path / "a.mat", whole, _halves())
    masks = [mask(box(SIZE_HW, 0, 1, 0, 1), 0.9), mask(whole == 1, 0.5)]
    score, (first, of_all) = _score(path, masks)
    assert of_all.covering == pytest.approx((1.0 + 0.5) / 2)
    assert sorted(score.best_ious[:, 1]) == [0.5, 0.5, 1.0]
    # Recall at IoU 0.5 finds all three regions, at all others one.
    assert of_all.average_recall == pytest.approx((3 + 9 * 1) / 30)
    assert first.average_recall == 0
    assert (first.masks_per_image, of_all.masks_per_image) == (1, 2)


def test_small_regions_count_for_covering_alone(tmp_path):
    labels = _halves()
    labels[0, :39] = 3  # 39 pixels
    path = write_mat(tmp_path / "a.mat", labels)
    _, (_, of_all) = _score(path, [mask(labels == value) for value in (1, 7)])
    assert of_all.n_regions == 2
    assert of_all.covering == pytest.approx(1 - 39 / labels.size)


def test_no_masks_score_zero(tmp_path):
    _, (_, of_all) = _score(write_mat(tmp_path / "a.mat", _halves()), [])
    assert (of_all.covering, of_all.average_recall, of_all.masks_per_image) == (0, 0, 0)


def test_masks_of_another_size_are_not_compared(tmp_path):
    path = write_mat(tmp_path / "a.mat", _halves().T)
    with pytest.raises(OtherSizeError, match="20 x 40 is not 40 x 20"):
        _score(path, [])


def test_files_are_found_below_any_folder(tmp_path):
    for name in ("groundTruth/val/2.mat", "groundTruth/train/1.mat"):
        write_mat(tmp_path / name, _halves())
    assert [truth.name for truth in list_bsds(tmp_path)] == ["1", "2"]
    assert [truth.name for truth in list_bsds(tmp_path / "groundTruth" / "val")] == ["2"]


def test_what_lies_beside_the_ground_truth_is_not_it(tmp_path):
    for folder in ("data/groundTruth/val", "ucm2/val"):
        write_mat(tmp_path / folder / "1.mat", _halves())
    (truth,) = list_bsds(tmp_path)
    assert truth.truth == tmp_path / "data" / "groundTruth" / "val" / "1.mat"


def test_boundaries_are_read(tmp_path):
    edges = box(SIZE_HW, 0, 20, 20, 21)
    path = write_mat(tmp_path / "a.mat", _halves(), boundaries=[edges.astype(np.uint8)])
    (drawing,) = read_drawings(path)
    np.testing.assert_array_equal(drawing.boundaries, edges)
    np.testing.assert_array_equal(drawing.labels, _halves())


@pytest.mark.parametrize("damage", ["empty", "cut", "other", "none"])
def test_a_damaged_file_is_named(tmp_path, damage):
    path = write_mat(tmp_path / "a.mat", _halves())
    if damage == "other":
        savemat(path, {"something": 1})
    elif damage == "none":
        savemat(path, {"groundTruth": np.empty((1, 0), dtype=object)})
    else:
        path.write_bytes(path.read_bytes()[: 0 if damage == "empty" else 300])
    with pytest.raises(EvaluationError, match=r"a\.mat"):
        read_drawings(path)
