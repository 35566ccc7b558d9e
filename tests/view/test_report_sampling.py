"""Which images are shown."""

import numpy as np
import pytest

from amg.view.report.counting import Extremes
from amg.view.report.sampling import choose, n_extremes


def _extremes(n, **keys):
    kinds = {}
    for kind, values in keys.items():
        kinds[kind] = Extremes(n)
        kinds[kind].add(np.asarray(values, float), np.arange(len(values)))
    return kinds


def test_all_images_of_a_small_run_are_shown_once():
    choice = choose([range(4), range(8, 12)], {}, 8)
    assert choice.is_all
    assert choice.rows == [0, 1, 2, 3, 8, 9, 10, 11]
    assert sorted(choice.sample) == choice.rows
    assert choice.sample != choice.rows, "shuffled"


def test_extremes_are_in_and_the_rest_is_drawn():
    n = 40
    keys = np.random.default_rng(0).random(1000)
    found = _extremes(n_extremes(n), fewest=keys, most=-keys)
    choice = choose([range(1000)], found, n)
    assert not choice.is_all
    assert choice.extremes["fewest"] == np.argsort(keys)[:4].tolist()
    assert {*choice.extremes["fewest"], *choice.extremes["most"]} <= {*choice.rows}
    assert len(choice.sample) == n - 8
    assert n - 8 <= len(choice.rows) <= n
    assert choice.rows == sorted({*choice.rows})


def test_the_same_run_gives_the_same_sample():
    assert choose([range(500)], {}, 20) == choose([range(500)], {}, 20)


def test_the_sample_is_uniform_over_what_is_committed():
    parts = [range(10_000, 20_000), range(50_000, 80_000)]
    sample = np.array(choose(parts, {}, 8000).sample)
    assert len(set(sample.tolist())) == 8000
    assert all((sample >= 10_000) & (sample < 80_000) & ~((sample >= 20_000) & (sample < 50_000)))
    counts, _ = np.histogram(sample, [10_000, 20_000, 50_000, 60_000, 70_000, 80_000])
    assert counts.tolist() == pytest.approx([2000, 0, 2000, 2000, 2000], abs=150)


def test_an_empty_run_and_a_sample_of_one():
    assert choose([], {}, 5).rows == []
    found = _extremes(n_extremes(1), fewest=range(9), failed=range(9, 0, -1))
    choice = choose([range(9)], found, 1)
    assert choice.rows == [0]
    assert choice.extremes == {"fewest": [0], "failed": []}
    assert choice.sample == []


@pytest.mark.parametrize("n", range(1, 12))
def test_no_more_are_shown_than_asked_for(n):
    keys = np.random.default_rng(n).random((5, 100))
    found = _extremes(n_extremes(n), **dict(zip("abcde", keys, strict=True)))
    choice = choose([range(100)], found, n)
    assert 1 <= len(choice.rows) <= n
    assert {*choice.rows} == {*choice.sample}.union(*choice.extremes.values())
