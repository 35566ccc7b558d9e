"""Masks measured at full size, array by array: what `full_size_numba` and `full_size_triton` do in
one pass from low-res logits.
"""

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


def mask_boxes(masks: torch.Tensor) -> torch.Tensor:
    """The box around each mask, (M, H, W) bool to (M, 4) int64 XYXY; all zero for an empty mask.

    Source: `segment_anything/utils/amg.py`, batched_mask_to_box.
    """
    x0, x1 = _first_and_last(masks.any(dim=1))
    y0, y1 = _first_and_last(masks.any(dim=2))
    return torch.stack([x0, y0, x1, y1], dim=1)


def _first_and_last(occupied: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """First and last true index along (M, L) bool; zeros where there is none."""
    flags = occupied.to(torch.uint8)
    first = flags.argmax(dim=1)
    last = occupied.shape[1] - 1 - flags.flip(1).argmax(dim=1)
    return first, last * occupied.any(dim=1)
