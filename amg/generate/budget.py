"""How much the generator may hold at once: a budget in bytes, shared out.

Half of it is for prompts that are being decoded, half for masks that wait for NMS. The model, the
image encoder's arrays (`encoder_batch_size`) and the image itself come on top.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from amg.config import GeneratorConfig
from amg.models.interface import PromptableModel

_SHARE_OF_FREE = 1 / 4
# More at once are no faster. A CPU is slower with more than one image in its encoder.
_POINTS_PER_THREAD, _BYTES_PER_THREAD = 64, 40_000_000
_POINTS_PER_DEVICE = 512
_ENCODER_BATCH = 4
_CGROUP = Path("/sys/fs/cgroup")


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
    budget = config.memory_budget or int(free_bytes(model.device) * _SHARE_OF_FREE)
    n_points = int(budget / 2 // model.bytes_per_point)
    on_cpu = model.device.type == "cpu"
    per_thread = min(_POINTS_PER_THREAD, max(1, _BYTES_PER_THREAD // model.bytes_per_point))
    useful = per_thread * torch.get_num_threads() if on_cpu else _POINTS_PER_DEVICE
    return Allowance(
        points_per_batch=config.points_per_batch or max(1, min(n_points, useful)),
        encoder_batch_size=config.encoder_batch_size or (1 if on_cpu else _ENCODER_BATCH),
        waiting_bytes=budget // 2,
    )


def free_bytes(device: torch.device) -> int:
    """Memory that nobody uses: of a CUDA device, or of this machine or container."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    free = os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
    limit, used = (_cgroup_number(name) for name in ("memory.max", "memory.current"))
    return free if limit is None else min(free, max(limit - (used or 0), 0))


def _cgroup_number(name: str) -> int | None:
    """A number of this container's (cgroup v2); None without one, or without a limit."""
    try:
        text = (_CGROUP / name).read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
