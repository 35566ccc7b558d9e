import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from amg.ops.threads import map_in_threads


def test_results_come_in_order_from_several_threads(set_threads):
    set_threads(3)
    three_at_once = threading.Barrier(3, timeout=20)

    def work(item):
        if item < 3:
            three_at_once.wait()
        return item, threading.current_thread().name, torch.is_inference_mode_enabled()

    with torch.inference_mode():
        results = map_in_threads(work, range(9))
    assert [item for item, _, _ in results] == list(range(9))
    assert all(name.startswith("amg") for _, name, _ in results)
    assert all(in_inference for _, _, in_inference in results)
    assert not any(in_inference for _, _, in_inference in map_in_threads(work, range(3, 6)))


@pytest.mark.parametrize("with_grad", [True, False])
def test_gradients_are_computed_as_outside(with_grad, set_threads):
    set_threads(2)
    with torch.set_grad_enabled(with_grad):
        assert map_in_threads(lambda _: torch.is_grad_enabled(), range(4)) == [with_grad] * 4


def test_one_thread_is_the_caller(set_threads):
    set_threads(1)
    here = threading.current_thread()
    assert map_in_threads(lambda _: threading.current_thread(), [1, 2]) == [here, here]


def test_threads_compute_alone_and_leave_the_rest_as_it_was(set_threads):
    set_threads(2)
    assert map_in_threads(lambda _: torch.get_num_threads(), range(4)) == [1] * 4
    assert torch.get_num_threads() == 2
    born = []
    thread = threading.Thread(target=lambda: born.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert born == [2]


def test_an_error_comes_out(set_threads):
    set_threads(2)
    with pytest.raises(ZeroDivisionError):
        map_in_threads(lambda item: 1 / item, [1, 0])
    with ThreadPoolExecutor(1) as born_later:
        assert born_later.submit(torch.get_num_threads).result() == 2
