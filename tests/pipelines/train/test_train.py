import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from amg.models.families.build import build_nano
from amg.models.modules.fine_tiny_vit import FineFeatures
from amg.models.zoo.checkpoint import load_weights, save_weights
from amg.models.zoo.load import load_model
from pipelines.train.export import main as export
from pipelines.train.recipes import RECIPES
from pipelines.train.trainer import Settings, Trainer, trained_model


@pytest.fixture(autouse=True)
def tiny_recipes(monkeypatch):
    """The phases, at the smallest size."""
    for name, phases in RECIPES.items():
        tiny = tuple(replace(p, size_px=64, batch_size=2, n_points=2) for p in phases)
        monkeypatch.setitem(RECIPES, name, tiny)


def test_training_goes_through_its_phases_resumes_and_exports(tmp_path):
    settings = Settings(tmp_path, "scratch", minutes=0.02, seed=0, device="cpu")
    trainer = Trainer(settings)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.run()
    after = trainer.model.state_dict()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert "image_encoder.patch_embed.seq.0.c.weight" in changed
    assert "mask_decoder.output_hypernetworks_mlps.3.layers.2.weight" in changed
    assert "mask_decoder.iou_prediction_head.layers.0.weight" in changed

    resumed = Trainer(settings)
    resumed.load()
    assert resumed.progress == trainer.progress
    assert resumed.progress.phase == len(RECIPES["scratch"])
    for ours, theirs in zip(resumed.optimizers, trainer.optimizers, strict=True):
        mine, other = (optimizer.state_dict()["state"] for optimizer in (ours, theirs))
        assert mine
        torch.testing.assert_close(mine, other)

    export(state=tmp_path / "state.pt", out=tmp_path / "nano.safetensors")
    model = build_nano()
    load_weights(model, tmp_path / "nano.safetensors")
    expected = trained_model(tmp_path / "state.pt").state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[name].half().to(value.dtype))


def test_each_parameter_has_one_optimizer(tmp_path):
    trainer = Trainer(Settings(tmp_path, "further", minutes=1, seed=0, device="cpu"))
    adamw, muon = ([id(p) for p in o.param_groups[0]["params"]] for o in trainer.optimizers)
    assert sorted(adamw + muon) == sorted(map(id, trainer.parameters))
    assert all(p.ndim == 2 for p in trainer.optimizers[1].param_groups[0]["params"])


def test_a_state_of_an_earlier_version_is_refused(tmp_path):
    trainer = Trainer(Settings(tmp_path, "further", minutes=1, seed=0, device="cpu"))
    trainer.save()
    state = torch.load(tmp_path / "state.pt")
    state["optimizer"] = state.pop("optimizers")[0]
    torch.save(state, tmp_path / "state.pt")
    with pytest.raises(ValueError, match=r"state\.pt: by an earlier version"):
        trainer.load()


def test_a_call_may_end_early(tmp_path):
    settings = Settings(tmp_path, "further", 60.0, seed=0, device="cpu", call_minutes=0.0)
    trainer = Trainer(settings)
    trainer.run()
    assert (trainer.progress.steps, trainer.progress.phase) == (1, 0)
    again = Trainer(settings)
    again.load()
    again.run()
    assert again.progress.steps == 2


@torch.no_grad()
def test_images_drawn_together_are_those_drawn_alone(tmp_path):
    trainer = Trainer(Settings(tmp_path, "gpu", 60.0, seed=0, device="cpu", scene_workers=0))
    phase = trainer.phases[0]
    trainer._prepare(phase)
    batch = next(trainer._batches(phase))
    features = trainer._encode(batch)
    logits, scores = trainer._draw(features, batch.points_xy)
    for i in range(2):
        one = FineFeatures(*(maps[i : i + 1] for maps in features))
        own = slice(i * phase.n_points, (i + 1) * phase.n_points)
        alone, its_scores = trainer._draw(one, batch.points_xy[i : i + 1])
        torch.testing.assert_close(logits[own], alone, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(scores[own], its_scores, rtol=1e-4, atol=1e-4)


def test_training_begins_with_earlier_weights(tmp_path):
    earlier = build_nano()
    save_weights(earlier, tmp_path / "earlier.safetensors")
    trainer = Trainer(Settings(tmp_path, "further", 60.0, seed=1, device="cpu"))
    trainer.start_from(tmp_path / "earlier.safetensors")
    state = trainer.model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in earlier.state_dict().items())


@pytest.mark.slow
def test_the_commands_train_and_export_a_model_that_loads(tmp_path):
    """One step a phase, by two processes."""
    state, weights = tmp_path / "work" / "state.pt", tmp_path / "nano.safetensors"
    train = ["pipelines.train", "--out", state.parent, "--minutes", "0.01", "--workers", "2"]
    export = ["pipelines.train.export", "--state", state, "--out", weights]
    for command in (train, export):
        subprocess.run([sys.executable, "-m", *map(str, command)], check=True, timeout=600)
    assert load_model("nano", checkpoint=weights).imgsz == 448
