"""Which optimiser moves which of the model's parameters, and how fast."""

from collections.abc import Iterable, Mapping

import torch
from torch import nn

_WEIGHT_DECAY = 0.03
_MUON_MOMENTUM = 0.95
# Of the learning rate: what has learned before moves less.
_PACES: Mapping[str, float] = {"image_encoder.trunk": 0.3, "image_encoder.neck": 1.0, "": 0.5}


def make_optimizers(model: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the model's linear layers; AdamW for the rest.

    The heads' last layers are among them, which the source leaves to AdamW. Each group of
    parameters has a `pace`, its share of the learning rate.
    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024); its
    rate is scaled so that AdamW's fits ("Muon is Scalable for LLM Training", 2025).
    """
    matrices = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    named = list(model.named_parameters())
    return [
        torch.optim.AdamW(
            _groups((n, p) for n, p in named if id(p) not in matrices),
            betas=(0.9, 0.98),
            weight_decay=_WEIGHT_DECAY,
        ),
        torch.optim.Muon(
            _groups((n, p) for n, p in named if id(p) in matrices),
            momentum=_MUON_MOMENTUM,
            weight_decay=_WEIGHT_DECAY,
            adjust_lr_fn="match_rms_adamw",
        ),
    ]


def _groups(named: Iterable[tuple[str, nn.Parameter]]) -> list[dict[str, object]]:
    """Parameters by their pace."""
    by_pace: dict[float, list[nn.Parameter]] = {}
    for name, parameter in named:
        pace = next(pace for prefix, pace in _PACES.items() if name.startswith(prefix))
        by_pace.setdefault(pace, []).append(parameter)
    return [{"params": parameters, "pace": pace} for pace, parameters in by_pace.items()]
