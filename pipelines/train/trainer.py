"""The trainer of the built-in model: a model, its optimisers, and their way through a recipe."""

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import torch
from torch import distributed, nn

from amg.models.families.build import build_next_nano
from amg.models.families.fine_sam import FineSAMModel
from amg.models.modules.fine_encoder import FineEncoder
from amg.models.zoo.checkpoint import load_weights
from amg.ops.processes import die_with_parent, usable_cores
from pipelines.train.objective import Objective
from pipelines.train.optimizers import make_optimizers
from pipelines.train.pretrained import load_trunk
from pipelines.train.prompts import SceneStream, TrainingBatch, stream_batches
from pipelines.train.recipes import RECIPES, Phase

logger = logging.getLogger(__name__)
_AVERAGED_STEPS = 500  # of the weights that are kept: about what the last of them were
_SAVE_EVERY_S = 60
_LOG_EVERY_STEPS = 50


@dataclass
class Progress:
    """Where training is: the scenes of this phase, of all, and what they cost this process.

    `cpu_s` are seconds of processors, without those of the processes that make scenes.
    """

    phase: int = 0
    phase_scenes: int = 0
    scenes: int = 0
    steps: int = 0
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of the command. `world` processes share a batch; this one is `rank`."""

    out: Path
    recipe: str
    scenes: int
    seed: int
    device: str
    scene_workers: int = 1
    call_minutes: float | None = None
    compile: bool = False
    rank: int = 0
    world: int = 1


class Trainer:
    """The model, its optimiser, and where they are in the phases."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.phases = RECIPES[settings.recipe]
        self.device = torch.device(settings.device)
        self.rank, self.world = settings.rank, settings.world
        torch.manual_seed(settings.seed)
        self.model = build_next_nano(self.phases[0].size_px).to(self.device)
        self.trunk = cast(FineEncoder, self.model.image_encoder).trunk
        load_trunk(self.trunk)
        self.parameters = list(self.model.parameters())
        self.optimizers = make_optimizers(self.model)
        self.averages = [p.detach().clone() for p in self.parameters]
        self.progress = Progress()
        self.objective = Objective(self.model, settings.compile)
        self._called_at = time.monotonic()

    def run(self) -> None:
        """Go through the phases that are left, or as far as this call's minutes reach."""
        while self.progress.phase < len(self.phases):
            if not self._run_phase(self.phases[self.progress.phase]):
                break
            self.progress.phase += 1
            self.progress.phase_scenes = 0
        self.save()

    def _run_phase(self, phase: Phase) -> bool:
        """Train; gives whether the phase came to its end."""
        self._prepare(phase)
        saved_at = time.monotonic()
        since_log: list[dict[str, torch.Tensor]] = []
        cpu_s = time.process_time()
        for batch in self._batches(phase):
            done = self.progress.phase_scenes / (phase.share * self.settings.scenes)
            since_log.append(self._step(phase, batch.to(self.device), min(1.0, done)))
            self.progress.cpu_s += time.process_time() - cpu_s
            cpu_s = time.process_time()
            if len(since_log) == _LOG_EVERY_STEPS:
                self._log(phase, since_log)
                since_log.clear()
            if time.monotonic() - saved_at > _SAVE_EVERY_S:
                self.save()
                saved_at = time.monotonic()
            if self.progress.phase_scenes >= phase.share * self.settings.scenes:
                return True
            if self._is_call_over():
                return False
        raise AssertionError("the stream of batches is endless")

    def _log(self, phase: Phase, steps: list[dict[str, torch.Tensor]]) -> None:
        """Write where training is, with the means of some steps' numbers."""
        if self.rank:
            return
        means = {name: torch.stack([step[name] for step in steps]).mean() for name in steps[0]}
        numbers = {name: round(value.item(), 4) for name, value in means.items()}
        logger.info(json.dumps({**asdict(self.progress), "phase": phase.name, **numbers}))

    def _prepare(self, phase: Phase) -> None:
        """Set the model to the phase's size."""
        self.model.set_imgsz(phase.size_px)
        self.model.train()
        self.trunk.requires_grad_(phase.trains_trunk)

    def _batches(self, phase: Phase) -> Iterator[TrainingBatch]:
        seed = (self.settings.seed, self.progress.steps, self.rank)
        stream = SceneStream(phase.size_px, phase.n_points, phase.n_boxes, seed, phase.n_views)
        size = phase.batch_size // self.world
        return stream_batches(stream, size, self.settings.scene_workers)

    def _is_call_over(self) -> bool:
        """Whether this call has had its minutes; several processes agree on it."""
        if self.settings.call_minutes is None:
            return False
        spent_s = self._average(torch.tensor([time.monotonic() - self._called_at])).item()
        return spent_s > self.settings.call_minutes * 60

    def _step(self, phase: Phase, batch: TrainingBatch, done: float) -> dict[str, torch.Tensor]:
        lr = phase.lr_start + (phase.lr_end - phase.lr_start) * done
        warm_up = min(1.0, (self.progress.steps + 1) / 200)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = lr * warm_up * group["pace"]
        balance = phase.balance_start + (phase.balance_end - phase.balance_start) * done
        # A tensor, or every new number would be compiled for.
        metrics = self.objective.backward(batch, torch.tensor(balance, device=self.device))
        self._average_gradients()
        norm = nn.utils.clip_grad_norm_(self.parameters, 1.0)
        if not torch.isfinite(norm):
            raise FloatingPointError(f"step {self.progress.steps}: the gradient is not finite")
        for optimizer in self.optimizers:
            optimizer.step()
        self.progress.steps += 1
        n_scenes = len(batch.images) * self.world
        self.progress.scenes += n_scenes
        self.progress.phase_scenes += n_scenes
        self._average_weights()
        return {"lr": torch.tensor(lr * warm_up), **metrics}

    @torch.no_grad()
    def _average_weights(self) -> None:
        """Move the averages towards the weights: over few steps at first, which begin at chance."""
        share = max(1 / _AVERAGED_STEPS, 9 / (10 + self.progress.steps))
        for average, parameter in zip(self.averages, self.parameters, strict=True):
            average.lerp_(parameter, share)

    def _average_gradients(self) -> None:
        """Give every process the mean of all processes' gradients."""
        if self.world == 1:
            return
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        mean = self._average(nn.utils.parameters_to_vector(gradients))
        nn.utils.vector_to_parameters(mean, gradients)

    def _average(self, values: torch.Tensor) -> torch.Tensor:
        """The mean over processes."""
        if self.world > 1:
            distributed.all_reduce(values)
        return values / self.world

    def save(self) -> None:
        """Write everything needed to go on, atomically; the first process does."""
        if self.rank:
            return
        self.settings.out.mkdir(parents=True, exist_ok=True)
        state = {
            "model": self.model.state_dict(),
            "averages": self.averages,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "progress": asdict(self.progress),
        }
        partial = self.settings.out / "state.pt.partial"
        torch.save(state, partial)
        partial.replace(self.settings.out / "state.pt")

    def start_from(self, weights: Path) -> None:
        """Begin with the weights of an earlier training."""
        load_weights(self.model, weights)
        self.averages = [p.detach().clone() for p in self.parameters]

    def load(self) -> None:
        """Go on from the last save, if there is one."""
        path = self.settings.out / "state.pt"
        if not path.exists():
            return
        state = torch.load(path, weights_only=True, map_location=self.device)
        self.model.load_state_dict(state["model"])
        self.averages = state["averages"]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.progress = Progress(**state["progress"])


def trained_model(state_path: Path) -> FineSAMModel:
    """The model of a saved state, with the averages of its weights."""
    state = torch.load(state_path, weights_only=True, map_location="cpu")
    model = build_next_nano()
    model.load_state_dict(state["model"])
    with torch.no_grad():
        for parameter, average in zip(model.parameters(), state["averages"], strict=True):
            parameter.copy_(average)
    return model.eval()


def train(rank: int, settings: Settings, init: Path | None, rendezvous: str) -> None:
    """Be one of the processes that train together."""
    die_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    settings = replace(settings, rank=rank)
    if settings.world > 1:
        torch.set_num_threads(max(1, usable_cores() // settings.world))
        distributed.init_process_group(
            "gloo", f"file://{rendezvous}", rank=rank, world_size=settings.world
        )
    trainer = Trainer(settings)
    if init is not None:
        trainer.start_from(init)
    trainer.load()
    trainer.run()
