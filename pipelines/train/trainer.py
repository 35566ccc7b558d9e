"""The trainer of the built-in model: a model, its optimisers, and their way through a recipe."""

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar, cast

import torch
from torch import distributed, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from amg.models.families.build import build_nano
from amg.models.families.fine_sam import FineSAMModel
from amg.models.modules.fine_tiny_vit import FineFeatures
from amg.models.zoo.checkpoint import load_weights
from amg.ops.processes import usable_cores
from pipelines.corpus.parent import die_with_parent
from pipelines.train.losses import (
    affinity_logits,
    mask_and_score_loss,
    pairwise_iou,
    pairwise_mask_loss,
)
from pipelines.train.optimizers import make_optimizers
from pipelines.train.prompts import MASK_STRIDE, TrainingBatch, stream_batches
from pipelines.train.recipes import RECIPES, Phase

logger = logging.getLogger(__name__)
Step = TypeVar("Step", bound=Callable[..., object])
_LEVELS = 3
_SAVE_EVERY_S = 300
_LOG_EVERY_STEPS = 50


@dataclass
class Progress:
    """Where training is: seconds and steps spent in each phase so far."""

    phase: int = 0
    phase_s: float = 0.0
    steps: int = 0
    scenes: int = 0
    total_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of the command. `world` processes share a batch; this one is `rank`."""

    out: Path
    recipe: str
    minutes: float
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
        self.model = build_nano(self.phases[0].size_px).to(self.device)
        # Senses of likeness are read off the upscaled features by a layer that training alone has.
        width = self.model.mask_decoder.transformer_dim // 8
        self.likeness = nn.Linear(width, _LEVELS * (width + 1)).to(self.device)
        self.parameters = [*self.model.parameters(), *self.likeness.parameters()]
        self.optimizers = make_optimizers(self.model, self.likeness)
        self.progress = Progress()
        self._encode_pixels = _compiled(self.model.encode_batch, settings.compile)
        self._draw_masks = _compiled(self._draw, settings.compile)
        self._mask_loss = _compiled(mask_and_score_loss, settings.compile)
        self._called_at = time.monotonic()

    def run(self) -> None:
        """Go through the phases that are left, or as far as this call's minutes reach."""
        while self.progress.phase < len(self.phases):
            if not self._run_phase(self.phases[self.progress.phase]):
                break
            self.progress.phase += 1
            self.progress.phase_s = 0.0
        self.save()

    def _run_phase(self, phase: Phase) -> bool:
        """Train; gives whether the phase came to its end."""
        self._prepare(phase)
        duration_s = phase.share * self.settings.minutes * 60
        saved_at = time.monotonic()
        for batch, own_elapsed_s in _timed(self._batches(phase)):
            elapsed_s = self._average(torch.tensor([own_elapsed_s])).item()
            self.progress.phase_s += elapsed_s
            self.progress.total_s += elapsed_s
            done = min(1.0, self.progress.phase_s / duration_s)
            metrics = self._step(phase, batch.to(self.device), done)
            if self.progress.steps % _LOG_EVERY_STEPS == 0 and self.rank == 0:
                numbers = {name: round(value.item(), 4) for name, value in metrics.items()}
                logger.info(json.dumps({"phase": phase.name, **asdict(self.progress), **numbers}))
            if time.monotonic() - saved_at > _SAVE_EVERY_S:
                self.save()
                saved_at = time.monotonic()
            if done >= 1:
                return True
            if self._is_call_over():
                return False
        raise AssertionError("the stream of batches is endless")

    def _prepare(self, phase: Phase) -> None:
        """Set the model to the phase's size."""
        self.model.set_imgsz(phase.size_px)
        self.model.train()

    def _batches(self, phase: Phase) -> Iterator[TrainingBatch]:
        seed = (self.settings.seed, self.progress.steps, self.rank)
        return stream_batches(
            phase.size_px,
            phase.n_points,
            phase.batch_size // self.world,
            seed,
            self.settings.scene_workers,
            phase.n_views,
        )

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
            for group in optimizer.param_groups:
                group["lr"] = lr * warm_up
        balance = phase.balance_start + (phase.balance_end - phase.balance_start) * done
        # A tensor, or every new number would be compiled for.
        at_balance = torch.tensor(balance, device=self.device)
        objective = self._affinity_loss if phase.name == "affinity" else self._whole_loss
        loss, metrics = objective(batch, at_balance)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._average_gradients()
        norm = nn.utils.clip_grad_norm_(self.parameters, 1.0)
        if self.progress.steps % _LOG_EVERY_STEPS == 0 and not torch.isfinite(norm):
            raise FloatingPointError(f"step {self.progress.steps}: the gradient is not finite")
        for optimizer in self.optimizers:
            optimizer.step()
        self.progress.steps += 1
        self.progress.scenes += len(batch.images) * self.world
        return {"loss": loss.detach(), "lr": torch.tensor(lr * warm_up), **metrics}

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

    @contextmanager
    def _half_precision(self) -> Iterator[None]:
        """Run the model in bfloat16; losses stay in float32, outside."""
        # The fused CPU attention is slow backwards for heads this small.
        on_cpu = self.device.type == "cpu"
        attention = sdpa_kernel(SDPBackend.MATH) if on_cpu else nullcontext()
        with torch.autocast(self.device.type, torch.bfloat16), attention:
            yield

    def _encode(self, batch: TrainingBatch) -> FineFeatures:
        images = batch.images.permute(0, 3, 1, 2)
        pixels = (images - self.model.pixel_mean) / self.model.pixel_std
        return self._encode_pixels(pixels.contiguous(memory_format=torch.channels_last))

    def _affinity_loss(
        self, batch: TrainingBatch, balance: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        with self._half_precision():
            embedding, *high_res = self._encode(batch)
            upscaled = self.model.mask_decoder.upscale(embedding, high_res)
            logits = torch.cat(
                [
                    affinity_logits(maps, at, self.likeness, MASK_STRIDE)
                    for maps, at in zip(upscaled, batch.points_xy, strict=True)
                ]
            ).float()
        targets = batch.targets()
        pairwise = pairwise_mask_loss(logits, targets, balance)
        iou = pairwise_iou(logits, targets).diagonal(dim1=1, dim2=2).mean()
        return pairwise.diagonal(dim1=1, dim2=2).mean(), {"iou": iou}

    def _whole_loss(
        self, batch: TrainingBatch, balance: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        # A CPU's caches hold one image's prompts; a GPU wants all at once.
        n_at_once = 1 if self.device.type == "cpu" else len(batch.images)
        with self._half_precision():
            features = self._encode(batch)
            drawn = [
                self._draw_masks(FineFeatures(*maps), points_xy)
                for *maps, points_xy in zip(
                    *(x.split(n_at_once) for x in (*features, batch.points_xy)), strict=True
                )
            ]
        logits, scores = (torch.cat(parts).float() for parts in zip(*drawn, strict=True))
        return self._mask_loss(logits.flatten(2), scores, batch.targets(), balance)

    def _draw(
        self, features: FineFeatures, points_xy: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All four masks of P points on each of B images, points_xy (B, P, 2).

        Gives logits (B * P, 4, h, w) and scores (B * P, 4).
        """
        prompt_encoder, decoder = self.model.prompt_encoder, self.model.mask_decoder
        n_images, n_points, _ = points_xy.shape
        if n_images > 1:  # a single image is broadcast
            features = FineFeatures(*(x.repeat_interleave(n_points, dim=0) for x in features))
        # Prompts name a pixel by its corner, ours are pixel indices: the same.
        points = points_xy.flatten(0, 1).unsqueeze(1)
        labels = torch.ones(points.shape[:2], device=self.device)
        sparse, _ = prompt_encoder((points, labels), None, None)
        embedding, *high_res = features
        decoded = decoder.attend(
            embedding, prompt_encoder.get_dense_pe(), sparse, prompt_encoder.no_mask_dense()
        )
        upscaled = decoder.upscale(decoded.pixels, high_res)
        return decoder.draw(upscaled, decoded.mask_tokens), decoded.predicted_iou

    def save(self) -> None:
        """Write everything needed to go on, atomically; the first process does."""
        if self.rank:
            return
        self.settings.out.mkdir(parents=True, exist_ok=True)
        state = {
            "model": self.model.state_dict(),
            "likeness": self.likeness.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "progress": asdict(self.progress),
        }
        partial = self.settings.out / "state.pt.partial"
        torch.save(state, partial)
        partial.replace(self.settings.out / "state.pt")

    def start_from(self, weights: Path) -> None:
        """Begin with the weights of an earlier training."""
        load_weights(self.model, weights)

    def load(self) -> None:
        """Go on from the last save, if there is one."""
        path = self.settings.out / "state.pt"
        if not path.exists():
            return
        state = torch.load(path, weights_only=True, map_location=self.device)
        self.model.load_state_dict(state["model"])
        self.likeness.load_state_dict(state["likeness"])
        if "optimizers" not in state:
            raise ValueError(f"{path}: by an earlier version, with one optimizer; use --init")
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.progress = Progress(**state["progress"])


def _compiled(step: Step, wanted: bool) -> Step:
    return cast(Step, torch.compile(step, dynamic=False)) if wanted else step


def _timed(batches: Iterator[TrainingBatch]) -> Iterator[tuple[TrainingBatch, float]]:
    """Batches, each with the seconds since the one before: waiting for data counts."""
    last = time.monotonic()
    for batch in batches:
        now = time.monotonic()
        yield batch, now - last
        last = now


def trained_model(state_path: Path) -> FineSAMModel:
    """The model of a saved state, for evaluation."""
    model = build_nano()
    model.load_state_dict(torch.load(state_path, weights_only=True, map_location="cpu")["model"])
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
