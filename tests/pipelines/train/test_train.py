import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from amg.models.families.build import build_next_nano
from amg.models.modules.fine_encoder import FineFeatures
from amg.models.zoo.checkpoint import load_weights, save_weights
from pipelines.train.export import main as export
from pipelines.train.questions import first_questions
from pipelines.train.recipes import RECIPES
from pipelines.train.trainer import Settings, Trainer, trained_model


@pytest.fixture(autouse=True)
def tiny_recipes(monkeypatch):
    """The phases, at the smallest size."""
    for name, phases in RECIPES.items():
        tiny = tuple(
            replace(p, size_px=64, batch_size=2, n_points=2, n_boxes=1, share=1 / len(phases))
            for p in phases
        )
        monkeypatch.setitem(RECIPES, name, tiny)


def settings(folder, **changes):
    options = {"recipe": "cpu", "scenes": 10_000, "seed": 0, "device": "cpu", "scene_workers": 0}
    return Settings(folder, **{**options, **changes})


def changed(before, after):
    return [name for name in before if not torch.equal(before[name], after[name])]


def test_training_goes_through_its_phases_resumes_and_exports(tmp_path):
    trainer = Trainer(settings(tmp_path, scenes=8))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.run()
    names = changed(before, trainer.model.state_dict())
    assert "image_encoder.trunk.conv_stem.weight" in names
    assert "image_encoder.neck.quarter_lateral.weight" in names
    assert "mask_decoder.output_hypernetworks_mlps.3.layers.2.weight" in names
    assert "mask_decoder.iou_prediction_head.layers.0.weight" in names
    # Mask prompts and boxes are asked too; the trunk's norms keep their statistics.
    assert "prompt_encoder.mask_downscaling.0.weight" in names
    assert "prompt_encoder.point_embeddings.3.weight" in names
    assert not [name for name in names if "running" in name]

    resumed = Trainer(settings(tmp_path, scenes=8))
    resumed.load()
    assert resumed.progress == trainer.progress
    assert resumed.progress.phase == len(RECIPES["cpu"])
    torch.testing.assert_close(resumed.averages, trainer.averages)
    for ours, theirs in zip(resumed.optimizers, trainer.optimizers, strict=True):
        mine, other = (optimizer.state_dict()["state"] for optimizer in (ours, theirs))
        assert mine
        torch.testing.assert_close(mine, other)

    export(state=tmp_path / "state.pt", out=tmp_path / "nano.safetensors")
    model = build_next_nano()
    load_weights(model, tmp_path / "nano.safetensors")
    averages = dict(zip(dict(trainer.model.named_parameters()), trainer.averages, strict=True))
    for name, value in model.named_parameters():
        torch.testing.assert_close(value, averages[name].half().to(value.dtype))
    assert changed(dict(trained_model(tmp_path / "state.pt").named_parameters()), before)


def test_means_of_steps_are_logged_and_states_saved_meanwhile(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("pipelines.train.trainer._LOG_EVERY_STEPS", 2)
    monkeypatch.setattr("pipelines.train.trainer._SAVE_EVERY_S", -1)
    training = Trainer(settings(tmp_path, scenes=32))
    saved = []
    monkeypatch.setattr(training, "save", lambda: saved.append(training.progress.steps))
    losses = iter([1.0, 3.0, 5.0, 9.0])

    def step(phase, batch, done):
        training.progress.steps += 1
        training.progress.phase_scenes += 2
        return {"loss": torch.tensor(next(losses))}

    monkeypatch.setattr(training, "_step", step)
    with caplog.at_level("INFO"):
        assert training._run_phase(training.phases[0])
    logged = [json.loads(record.message) for record in caplog.records]
    assert [(line["steps"], line["loss"]) for line in logged] == [(2, 2.0), (4, 7.0)]
    assert {line["phase"] for line in logged} == {"neck"}
    assert saved == [1, 2, 3, 4]


def test_the_trunk_stays_while_only_the_neck_learns(tmp_path):
    trainer = Trainer(settings(tmp_path, call_minutes=0.0))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.run()
    assert trainer.progress.steps == 1
    names = changed(before, trainer.model.state_dict())
    assert "image_encoder.neck.lateral.weight" in names
    assert not [name for name in names if ".trunk." in name]


def test_each_parameter_has_one_optimizer(tmp_path):
    trainer = Trainer(settings(tmp_path))
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    parameters = [id(p) for group in groups for p in group["params"]]
    assert sorted(parameters) == sorted(map(id, trainer.parameters))
    muon = trainer.optimizers[1].param_groups
    assert all(p.ndim == 2 for group in muon for p in group["params"])
    trunk = {id(p) for p in trainer.trunk.parameters()}
    paces = {group["pace"] for group in groups if trunk & {id(p) for p in group["params"]}}
    assert paces == {0.3}


def test_a_call_may_end_early(tmp_path):
    trainer = Trainer(settings(tmp_path, call_minutes=0.0))
    trainer.run()
    assert (trainer.progress.steps, trainer.progress.phase) == (1, 0)
    again = Trainer(settings(tmp_path, call_minutes=0.0))
    again.load()
    again.run()
    assert again.progress.steps == 2


@torch.no_grad()
def test_images_asked_together_answer_as_alone(tmp_path):
    trainer = Trainer(settings(tmp_path, recipe="gpu"))
    phase = trainer.phases[0]
    trainer._prepare(phase)
    batch = next(trainer._batches(phase))
    features = trainer.objective._encode(batch)
    together = trainer.objective._answer(
        features, first_questions(batch.points_xy, batch.boxes_xyxy)
    )
    n_each = phase.n_points + phase.n_boxes
    for i in range(2):
        one, own = slice(i, i + 1), slice(i * n_each, (i + 1) * n_each)
        questions = first_questions(batch.points_xy[one], batch.boxes_xyxy[one])
        alone = trainer.objective._answer(FineFeatures(*(m[one] for m in features)), questions)
        for mine, its in zip(together, alone, strict=True):
            torch.testing.assert_close(mine[own], its, rtol=2e-2, atol=5e-2)  # in bfloat16


def test_training_begins_with_earlier_weights(tmp_path):
    earlier = build_next_nano()
    save_weights(earlier, tmp_path / "earlier.safetensors")
    trainer = Trainer(settings(tmp_path, seed=1))
    trainer.start_from(tmp_path / "earlier.safetensors")
    assert not changed(earlier.state_dict(), trainer.model.state_dict())
    parameters = dict(earlier.named_parameters())
    assert not changed(parameters, dict(zip(parameters, trainer.averages, strict=True)))


@pytest.mark.slow
def test_the_commands_train_and_export_a_model_that_loads(tmp_path):
    """One step a phase, by two processes."""
    state, weights = tmp_path / "work" / "state.pt", tmp_path / "nano.safetensors"
    train = ["pipelines.train", "--out", state.parent, "--scenes", "4", "--workers", "2"]
    export = ["pipelines.train.export", "--state", state, "--out", weights]
    for command in (train, export):
        subprocess.run([sys.executable, "-m", *map(str, command)], check=True, timeout=600)
    load_weights(build_next_nano(), weights)
