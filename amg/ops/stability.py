"""How little a mask changes when its threshold moves."""

import torch


def stability_score(logits: torch.Tensor, threshold: float, offset: float) -> torch.Tensor:
    """Area above `threshold + offset` over area above `threshold - offset`, (M,) float32.

    logits (M, H, W) at full resolution. NaN where nothing is above the lower threshold.
    Source: `segment_anything/utils/amg.py`, calculate_stability_score.
    """
    inner = (logits > threshold + offset).sum(dim=(1, 2))
    outer = (logits > threshold - offset).sum(dim=(1, 2))
    return inner / outer
