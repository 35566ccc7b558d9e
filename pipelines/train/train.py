"""Train the built-in model `nano` from scratch on procedural scenes.

Three phases, each with a share of the time budget:
1. affinity: encoder and upscaling learn which pixels belong together, without the transformer;
2. whole: the whole model learns to draw the part, object and group at a point and to score them;
3. large: the same at the size the model runs at.

    python -m pipelines.train.train --out work/nano --minutes 240 --processes 2

A checkpoint every few minutes makes it resumable: the same command goes on where it stopped.
Processes share each batch; on a busy CPU, processes of one thread each lose less to waiting.
"""

import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import distributed, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.attention import SDPBackend, sdpa_kernel

from amg.models.build import build_nano
from amg.models.checkpoint import load_weights
from amg.models.sam import SAMModel
from pipelines.train.losses import (
    affinity_logits,
    matched_loss,
    pairwise_iou,
    pairwise_mask_loss,
)
from pipelines.train.prompts import MASK_STRIDE, TrainingBatch, stream_batches

logger = logging.getLogger(__name__)
_LEVELS = 3
_SINGLE_MASK_REGION = 1  # the mask for unambiguous prompts means the object
_SAVE_EVERY_S = 300
_LOG_EVERY_STEPS = 50


@dataclass(frozen=True, slots=True)
class Phase:
    """One stretch of training, a `share` of the time budget.

    The learning rate and the balance of foreground go linearly from start to end.
    """

    name: str
    share: float
    size_px: int
    batch_size: int
    n_points: int
    lr_start: float
    lr_end: float
    balance_start: float
    balance_end: float


PHASES = (
    Phase("affinity", 0.15, 224, 16, 24, 1.5e-3, 1.0e-3, 1.0, 1.0),
    Phase("whole", 0.50, 224, 16, 16, 1.0e-3, 4.0e-4, 1.0, 0.5),
    Phase("large", 0.35, 448, 4, 24, 3.0e-4, 1.0e-5, 0.5, 0.3),
)


@dataclass
class Progress:
    """Where training is: seconds and steps spent in each phase so far."""

    phase: int = 0
    phase_s: float = 0.0
    steps: int = 0
    scenes: int = 0
    total_s: float = 0.0


class Trainer:
    """The model, its optimiser, and where they are in the phases."""

    def __init__(
        self, out: Path, minutes: float, seed: int, device: str, rank: int, world: int
    ) -> None:
        self.out, self.budget_s, self.seed, self.device = out, minutes * 60, seed, device
        self.rank, self.world = rank, world
        torch.manual_seed(seed)
        self.model = build_nano(PHASES[0].size_px).to(device)
        # Senses of likeness are read off the upscaled features by a layer that training alone has.
        width = self.model.mask_decoder.transformer_dim // 8
        self.likeness = nn.Linear(width, _LEVELS * (width + 1)).to(device)
        self.parameters = [*self.model.parameters(), *self.likeness.parameters()]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.03
        )
        self.progress = Progress()

    def run(self) -> None:
        """Go through the phases that are left."""
        while self.progress.phase < len(PHASES):
            self._run_phase(PHASES[self.progress.phase])
            self.progress.phase += 1
            self.progress.phase_s = 0.0
            self.save()

    def _run_phase(self, phase: Phase) -> None:
        self.model.set_imgsz(phase.size_px)
        self.model.train()
        seed = (self.seed, self.progress.steps, self.rank)
        batches = stream_batches(
            phase.size_px, phase.n_points, phase.batch_size // self.world, seed, 1
        )
        duration_s = phase.share * self.budget_s
        saved_at = time.monotonic()
        for batch, own_elapsed_s in _timed(batches):
            elapsed_s = self._average(torch.tensor([own_elapsed_s])).item()
            self.progress.phase_s += elapsed_s
            self.progress.total_s += elapsed_s
            done = min(1.0, self.progress.phase_s / duration_s)
            metrics = self._step(phase, batch, done)
            if self.progress.steps % _LOG_EVERY_STEPS == 0 and self.rank == 0:
                logger.info(json.dumps({"phase": phase.name, **asdict(self.progress), **metrics}))
            if time.monotonic() - saved_at > _SAVE_EVERY_S:
                self.save()
                saved_at = time.monotonic()
            if done >= 1:
                return

    def _step(self, phase: Phase, batch: TrainingBatch, done: float) -> dict[str, float]:
        lr = phase.lr_start + (phase.lr_end - phase.lr_start) * done
        warm_up = min(1.0, (self.progress.steps + 1) / 200)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * warm_up
        balance = phase.balance_start + (phase.balance_end - phase.balance_start) * done
        objective = self._affinity_loss if phase.name == "affinity" else self._whole_loss
        loss, metrics = objective(batch, balance)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._average_gradients()
        norm = nn.utils.clip_grad_norm_(self.parameters, 1.0)
        if not torch.isfinite(norm):
            raise FloatingPointError(f"step {self.progress.steps}: the gradient is not finite")
        self.optimizer.step()
        self.progress.steps += 1
        self.progress.scenes += len(batch.images) * self.world
        return {"loss": round(loss.item(), 4), "lr": round(lr, 6), **metrics}

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
        with (
            torch.autocast(torch.device(self.device).type, torch.bfloat16),
            sdpa_kernel(SDPBackend.MATH),
        ):
            yield

    def _encode(self, batch: TrainingBatch) -> torch.Tensor:
        images = batch.images.to(self.device).permute(0, 3, 1, 2)
        pixels = (images - self.model.pixel_mean) / self.model.pixel_std
        return self.model.encode(pixels.contiguous(memory_format=torch.channels_last))

    def _affinity_loss(
        self, batch: TrainingBatch, balance: float
    ) -> tuple[torch.Tensor, dict[str, float]]:
        with self._half_precision():
            upscaled = self.model.mask_decoder.upscale(self._encode(batch))
            points = batch.points_xy.to(self.device)
            logits = torch.cat(
                [
                    affinity_logits(embedding, at, self.likeness, MASK_STRIDE)
                    for embedding, at in zip(upscaled, points, strict=True)
                ]
            ).float()
        targets = batch.targets().to(self.device)
        pairwise = pairwise_mask_loss(logits, targets, balance)
        iou = pairwise_iou(logits, targets).diagonal(dim1=1, dim2=2).mean()
        return pairwise.diagonal(dim1=1, dim2=2).mean(), {"iou": round(iou.item(), 4)}

    def _whole_loss(
        self, batch: TrainingBatch, balance: float
    ) -> tuple[torch.Tensor, dict[str, float]]:
        with self._half_precision():
            features = self._encode(batch)
            points = batch.points_xy.to(self.device).unsqueeze(2)
            drawn = [self._draw(*pair) for pair in zip(features, points, strict=True)]
        logits, scores = (torch.cat(parts).float() for parts in zip(*drawn, strict=True))
        targets = batch.targets().to(self.device)
        return _mask_and_score_loss(logits.flatten(2), scores, targets, balance)

    def _draw(
        self, features: torch.Tensor, points_xy: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All four masks of points (P, 1, 2) on one image: logits (P, 4, h, w), scores (P, 4)."""
        prompt_encoder, decoder = self.model.prompt_encoder, self.model.mask_decoder
        labels = torch.ones(points_xy.shape[:2], device=self.device)
        # Prompts name a pixel by its corner, ours are pixel indices: the same.
        sparse, _ = prompt_encoder((points_xy, labels), None, None)
        decoded = decoder.attend(
            features.unsqueeze(0),
            prompt_encoder.get_dense_pe(),
            sparse,
            prompt_encoder.no_mask_dense(),
        )
        return decoder.draw(decoder.upscale(decoded.pixels), decoded.mask_tokens), (
            decoded.predicted_iou
        )

    def save(self) -> None:
        """Write everything needed to go on, atomically; the first process does."""
        if self.rank:
            return
        self.out.mkdir(parents=True, exist_ok=True)
        state = {
            "model": self.model.state_dict(),
            "likeness": self.likeness.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": asdict(self.progress),
        }
        partial = self.out / "state.pt.partial"
        torch.save(state, partial)
        partial.replace(self.out / "state.pt")

    def start_from(self, weights: Path) -> None:
        """Begin with the weights of an earlier training; the later phases have all the time."""
        load_weights(self.model, weights)
        self.progress.phase = 1
        self.budget_s /= sum(phase.share for phase in PHASES[1:])

    def load(self) -> None:
        """Go on from the last save, if there is one."""
        path = self.out / "state.pt"
        if not path.exists():
            return
        state = torch.load(path, weights_only=True, map_location=self.device)
        self.model.load_state_dict(state["model"])
        self.likeness.load_state_dict(state["likeness"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])


def _mask_and_score_loss(
    logits: torch.Tensor, scores: torch.Tensor, targets: torch.Tensor, balance: float
) -> tuple[torch.Tensor, dict[str, float]]:
    """Logits (N, 4, P), scores (N, 4), targets (N, 3, P): all masks drawn, all scores right."""
    pairwise = pairwise_mask_loss(logits, targets, balance)
    single = pairwise[:, 0, _SINGLE_MASK_REGION].mean()
    multiple = matched_loss(pairwise[:, 1:]).mean()
    iou = pairwise_iou(logits, targets)
    # A mask is good if it is any of the regions at its point: that is what ranking needs.
    best_iou = torch.cat([iou[:, :1, _SINGLE_MASK_REGION], iou[:, 1:].amax(2)], dim=1)
    score_error = (scores - best_iou).square().mean()
    metrics = {
        "iou_part": iou[:, 1:, 0].amax(1).mean(),
        "iou_object": iou[:, 1:, 1].amax(1).mean(),
        "iou_group": iou[:, 1:, 2].amax(1).mean(),
        "score_rmse": score_error.sqrt(),
    }
    loss = multiple + 0.3 * single + score_error
    return loss, {name: round(value.item(), 4) for name, value in metrics.items()}


def _timed(batches: Iterator[TrainingBatch]) -> Iterator[tuple[TrainingBatch, float]]:
    """Batches, each with the seconds since the one before: waiting for data counts."""
    last = time.monotonic()
    for batch in batches:
        now = time.monotonic()
        yield batch, now - last
        last = now


def trained_model(state_path: Path) -> SAMModel:
    """The model of a saved state, for evaluation."""
    model = build_nano()
    model.load_state_dict(torch.load(state_path, weights_only=True, map_location="cpu")["model"])
    return model.eval()


def _train(
    rank: int,
    world: int,
    out: Path,
    minutes: float,
    seed: int,
    device: str,
    init: Path | None,
    rendezvous: str,
) -> None:
    """Be one of `world` processes that train together."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if world > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // world))
        distributed.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=world)
    trainer = Trainer(out, minutes, seed, device, rank, world)
    if init is not None:
        trainer.start_from(init)
    trainer.load()
    trainer.run()


def main(
    out: Annotated[Path, typer.Option(help="Folder for the training state.")],
    minutes: Annotated[float, typer.Option(help="Time budget of all phases together.")] = 240,
    seed: Annotated[int, typer.Option()] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    processes: Annotated[int, typer.Option(help="Processes that share each batch.")] = 1,
    init: Annotated[Path | None, typer.Option(help="Weights to begin with, not at random.")] = None,
) -> None:
    """Train the built-in model, or go on with a training that was stopped."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = (processes, out, minutes, seed, device, init, f"{folder}/rendezvous")
        spawn(_train, arguments, nprocs=processes)


if __name__ == "__main__":
    typer.run(main)
