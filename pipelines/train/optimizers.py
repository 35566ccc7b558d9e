"""Which optimiser moves which of the model's parameters."""

import torch
from torch import nn

_WEIGHT_DECAY = 0.03
_MUON_MOMENTUM = 0.95


def make_optimizers(model: nn.Module, likeness: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the model's linear layers, four fifths of it; AdamW for the rest.

    The heads' last layers are among them, which the source leaves to AdamW. The model card says
    what it gained. Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks"
    (2024); its rate is scaled so that AdamW's fits ("Muon is Scalable for LLM Training", 2025).
    """
    matrices = [m.weight for m in model.modules() if isinstance(m, nn.Linear)]
    by_muon = {id(matrix) for matrix in matrices}
    rest = [p for p in (*model.parameters(), *likeness.parameters()) if id(p) not in by_muon]
    return [
        torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=_WEIGHT_DECAY),
        torch.optim.Muon(
            matrices,
            momentum=_MUON_MOMENTUM,
            weight_decay=_WEIGHT_DECAY,
            adjust_lr_fn="match_rms_adamw",
        ),
    ]
