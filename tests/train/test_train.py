from dataclasses import replace

import pytest
import torch

from amg.models.build import build_nano
from amg.models.checkpoint import load_weights
from pipelines.train import train
from pipelines.train.export import main as export
from pipelines.train.train import Trainer, trained_model


@pytest.fixture
def tiny_phases(monkeypatch):
    """The phases, at the smallest size and for a moment only."""
    phases = tuple(replace(p, size_px=64, batch_size=2, n_points=2) for p in train.PHASES)
    monkeypatch.setattr(train, "PHASES", phases)


def test_training_goes_through_its_phases_resumes_and_exports(tmp_path, tiny_phases):
    trainer = Trainer(tmp_path, minutes=0.02, seed=0, device="cpu", rank=0, world=1)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.run()
    after = trainer.model.state_dict()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert "image_encoder.patch_embed.seq.0.c.weight" in changed
    assert "mask_decoder.output_hypernetworks_mlps.3.layers.2.weight" in changed
    assert "mask_decoder.iou_prediction_head.layers.0.weight" in changed

    resumed = Trainer(tmp_path, minutes=0.02, seed=0, device="cpu", rank=0, world=1)
    resumed.load()
    assert resumed.progress == trainer.progress
    assert resumed.progress.phase == len(train.PHASES)

    export(state=tmp_path / "state.pt", out=tmp_path / "nano.safetensors")
    model = build_nano()
    load_weights(model, tmp_path / "nano.safetensors")
    expected = trained_model(tmp_path / "state.pt").state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[name].half().to(value.dtype))
