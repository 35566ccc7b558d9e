"""How little a mask changes when its threshold moves."""

import torch


def stability_score(logits: torch.Tensor, threshold: float, offset: float) -> torch.Tensor:
    """Area above `threshold + offset` over area above `threshold - offset`, (M,) float32.

    logits (M, H, W) at full resolution. NaN where nothing is above the lower threshold.
    Source: `segment_anything/utils/amg.py`, calculate_stability_score.
    """
    return _area(logits > threshold + offset) / _area(logits > threshold - offset)


def _area(masks: torch.Tensor) -> torch.Tensor:
    """Foreground pixels (M,) of (M, H, W); row by row is quicker, and int32 holds any area."""
    return masks.sum(-1, dtype=torch.int32).sum(-1, dtype=torch.int32)
