from types import SimpleNamespace

import pytest
import torch

from amg import ConfigError, GeneratorConfig, MaskGenerator
from amg.generate import budget
from amg.generate.budget import allow


def make_model(bytes_per_point=1000, device="cpu"):
    return SimpleNamespace(device=torch.device(device), bytes_per_point=bytes_per_point)


def test_a_budget_is_shared_out():
    allowance = allow(GeneratorConfig(memory_budget=100_000), make_model())
    assert (allowance.points_per_batch, allowance.waiting_bytes) == (50, 50_000)
    assert allow(GeneratorConfig(memory_budget=1), make_model()).points_per_batch == 1
    wide = GeneratorConfig(memory_budget="4GB")
    assert allow(wide, make_model(device="meta")).points_per_batch == 512
    assert allow(wide, make_model()).points_per_batch == 64 * torch.get_num_threads()
    at_1024 = make_model(bytes_per_point=64 * 64 * 3 * 3 * 16 * 4)
    assert allow(wide, at_1024).points_per_batch == 16 * torch.get_num_threads()


def test_explicit_batches_win():
    config = GeneratorConfig(memory_budget=100_000, points_per_batch=7, encoder_batch_size=3)
    allowance = allow(config, make_model())
    assert (allowance.points_per_batch, allowance.encoder_batch_size) == (7, 3)


def test_the_default_follows_the_device(monkeypatch):
    monkeypatch.setattr(budget, "free_bytes", lambda device: {"cpu": 0, "meta": 2**33}[str(device)])
    assert allow(GeneratorConfig(), make_model(device="meta")).waiting_bytes == 2**30
    # Where nothing seems to be free, it goes on all the same, and not one prompt at a time.
    assert allow(GeneratorConfig(), make_model()).waiting_bytes == 2**27
    assert allow(GeneratorConfig(), make_model()).encoder_batch_size == 1
    assert allow(GeneratorConfig(), make_model(device="meta")).encoder_batch_size == 4


@pytest.mark.parametrize("value", [0, -3, "lots"])
def test_budgets_are_sizes(value):
    with pytest.raises(ConfigError, match="memory_budget"):
        GeneratorConfig(memory_budget=value)


def test_masks_are_the_same_under_any_budget(nano, photos):
    """One prompt at a time, every mask encoded at once; and with all the memory there is."""
    loose = {"points_per_side": 8, "pred_iou_thresh": 0.2, "stability_score_thresh": 0.2}
    results = [
        MaskGenerator(nano, GeneratorConfig(**loose, memory_budget=budget)).generate(photos["cat"])
        for budget in (1, None)
    ]
    tight, wide = (result.to_annotations() for result in results)
    assert len(wide) > 5
    assert [mask["segmentation"] for mask in tight] == [mask["segmentation"] for mask in wide]
