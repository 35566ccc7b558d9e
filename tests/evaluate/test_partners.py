import pytest

from amg.errors import EvaluationError
from amg.evaluate.partners import TruthName, find_partners


def _names(*names):
    return [TruthName(f"truth of {name}", name) for name in names]


def test_ids_are_matched_by_name_number_and_base_name():
    truths = [
        TruthName("a", "val/a.jpg", 1),
        TruthName("b", "000000000002.jpg", 2),
        TruthName("c", "c.jpg", 3),
        TruthName("d", "d.jpg", 4),
    ]
    partners = find_partners(["val/a.jpg", "2", "shard.tar::train/c.png", "other"], truths)
    assert partners.by_id == {"val/a.jpg": "a", "2": "b", "shard.tar::train/c.png": "c"}
    counts = partners.counts(n_failed=1)
    assert (counts.n_compared, counts.n_failed) == (3, 1)
    assert (counts.n_rows_alone, counts.rows_alone) == (1, ("other",))
    assert (counts.n_truth_alone, counts.truth_alone) == (1, ("d.jpg",))


def test_base_names_that_occur_twice_match_nothing():
    partners = find_partners(["b.jpg", "x/1.jpg"], _names("train/1.jpg", "val/1.jpg", "b.jpg"))
    assert list(partners.by_id) == ["b.jpg"]
    assert find_partners(["val/1.jpg"], _names("train/1.jpg", "val/1.jpg")).by_id == {
        "val/1.jpg": "truth of val/1.jpg"
    }


def test_two_rows_of_one_image_are_refused():
    with pytest.raises(EvaluationError, match=r"'x/a.png' and 'y/a.png' are both of .*'a.jpg'"):
        find_partners(["x/a.png", "y/a.png"], _names("a.jpg"))


def test_no_partner_at_all_is_refused_with_both_sides_names():
    with pytest.raises(EvaluationError, match=r"here '1', '2', '3', \.\.\., there 'a'$"):
        find_partners(["1", "2", "3", "4"], _names("a"))
