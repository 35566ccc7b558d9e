import pytest
import torch


@pytest.fixture
def set_threads():
    """Choose torch's number of threads; the old one comes back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
