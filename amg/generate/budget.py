"""How much the generator may hold at once: a budget in bytes, shared out.

Half of it is for prompts that are being decoded, half for masks that wait for NMS. The model, the
image encoder's arrays (`encoder_batch_size`) and the image itself come on top.
"""

from dataclasses import dataclass

import torch

from amg.config import GeneratorConfig
from amg.models.interface import PromptableModel
from amg.ops.memory import free_bytes

_SHARE_OF_FREE = 1 / 4
# More at once are no faster. A CPU is slower with more than one image in its encoder.
_POINTS_PER_THREAD, _BYTES_PER_THREAD = 64, 40_000_000
_POINTS_PER_DEVICE = 512
_ENCODER_BATCH = 4
_LEAST_BYTES = 2**28  # where nothing seems to be free: to go on slowly is no use to anybody


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a configuration and the memory of its device allow.

    `waiting_bytes`: of low-res logits that wait for NMS.
    """

    points_per_batch: int
    encoder_batch_size: int
    waiting_bytes: int


def allow(config: GeneratorConfig, model: PromptableModel) -> Allowance:
    """Share the budget out: `config.memory_budget`, or a quarter of what the device has free."""
    free = free_bytes(model.device)
    budget = config.memory_budget or max(_LEAST_BYTES, int(free * _SHARE_OF_FREE))
    n_points = int(budget / 2 // model.bytes_per_point)
    on_cpu = model.device.type == "cpu"
    per_thread = min(_POINTS_PER_THREAD, max(1, _BYTES_PER_THREAD // model.bytes_per_point))
    useful = per_thread * torch.get_num_threads() if on_cpu else _POINTS_PER_DEVICE
    return Allowance(
        points_per_batch=config.points_per_batch or max(1, min(n_points, useful)),
        encoder_batch_size=config.encoder_batch_size or (1 if on_cpu else _ENCODER_BATCH),
        waiting_bytes=budget // 2,
    )


def with_quarter(config: GeneratorConfig, allowed: Allowance) -> GeneratorConfig | None:
    """A configuration whose batches need a quarter of the memory; None if they are at one."""
    if allowed.points_per_batch == 1 and allowed.encoder_batch_size == 1:
        return None
    smaller = {
        "points_per_batch": max(1, allowed.points_per_batch // 4),
        "encoder_batch_size": max(1, allowed.encoder_batch_size // 4),
        "memory_budget": max(1, 2 * allowed.waiting_bytes // 4),
    }
    return config.model_copy(update=smaller)
