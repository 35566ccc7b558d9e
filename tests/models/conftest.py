"""What every test of a model needs."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread(request):
    """Small models are slower with more, much so on a busy machine; large ones use them all."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(n_threads if request.node.get_closest_marker("large") else 1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield
