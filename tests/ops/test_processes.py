"""Work is shared by as many processes as it pays, and comes back in order."""

import os

import pytest

from amg.ops import processes
from amg.ops.processes import map_in_processes, workers_for


@pytest.mark.parametrize(
    ("n_tasks", "wanted", "cores", "expected"),
    [
        (100, 3, 16, 3),
        (2, 3, 16, 2),  # none without a task
        (0, 3, 16, 1),
        (100, None, 16, 8),  # each has memory of its own
        (100, None, 2, 2),
        (12, None, 16, 3),
        (7, None, 16, 1),  # too few to pay for a start
        (0, None, 16, 1),
    ],
)
def test_workers_are_as_many_as_pay(monkeypatch, n_tasks, wanted, cores, expected):
    monkeypatch.setattr(processes, "usable_cores", lambda: cores)
    assert workers_for(n_tasks, wanted) == expected


def _with_process(number):
    return number, os.getpid()


def test_results_are_in_order_and_from_other_processes():
    numbers, where = zip(*map_in_processes(_with_process, iter(range(9)), 2), strict=True)
    assert numbers == tuple(range(9))
    assert os.getpid() not in where
    assert [pid for _, pid in map_in_processes(_with_process, iter(range(3)), 1)] == [
        os.getpid()
    ] * 3


def test_few_tasks_exist_at_once():
    taken = []
    results = map_in_processes(_with_process, (taken.append(i) or i for i in range(50)), 2)
    next(results)
    assert len(taken) <= 5
    results.close()
