"""Masks at the size of their crop: measured, and encoded, without keeping their pixels."""

import logging
from collections.abc import Iterator
from functools import cache
from types import ModuleType

import numpy as np
import torch

from amg.generate.crops import Crop
from amg.models.interface import Frame, PromptableModel
from amg.ops import full_size_numba, rle
from amg.ops.full_size_plain import mask_boxes, stability_score
from amg.ops.outline_logits import OutlineLogits, keep_outline_logits
from amg.records import Rle

_logger = logging.getLogger(__name__)

# Full-resolution logits that exist at once: bounds memory whatever the image's size.
_TILE_ELEMENTS = 32 * 1024 * 1024


def measure_masks(
    model: PromptableModel, logits: torch.Tensor, frame: Frame, threshold: float, offset: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Stability (M,) float32 and box (M, 4) int64 of low-res logits (M, h, w), in the crop."""
    if (twin := _twin(model, logits)) is not None:
        return twin.measure_masks(logits, model.resampling(frame), threshold, offset)
    parts = [
        (stability_score(full, threshold, offset), mask_boxes(full > threshold))
        for full in _upsampled(model, logits, frame, frame.size_hw)
    ]
    scores, boxes_xyxy = (torch.cat(column) for column in zip(*parts, strict=True))
    return scores, boxes_xyxy


def encode_masks(
    model: PromptableModel,
    logits: torch.Tensor,
    frame: Frame,
    crop: Crop,
    size_hw: tuple[int, int],
    threshold: float,
) -> list[Rle]:
    """Run lengths of low-res logits (M, h, w) of a crop, in the image's frame, `size_hw`."""
    x0, y0, x1, y1 = crop.box_xyxy
    if (twin := _twin(model, logits)) is not None:
        resampling = model.resampling(frame)
        return twin.encode_masks(logits, resampling, threshold, (x0, y0), size_hw)
    margins = (0, 0), (y0, size_hw[0] - y1), (x0, size_hw[1] - x1)
    return [
        encoded
        for full in _upsampled(model, logits, frame, size_hw)
        for encoded in rle.encode_masks(np.pad((full > threshold).cpu().numpy(), margins))
    ]


def compact(
    model: PromptableModel, logits: torch.Tensor, threshold: float
) -> torch.Tensor | OutlineLogits:
    """What `encode_masks` needs of low-res logits (M, h, w), in less memory where it can be."""
    needs_outlines_alone = _twin(model, logits) is full_size_numba
    return keep_outline_logits(logits, threshold) if needs_outlines_alone else logits


def _twin(model: PromptableModel, logits: torch.Tensor) -> ModuleType | None:
    """The module that measures and encodes such logits in one pass; None if upsampling has to."""
    device, dtype = logits.device.type, logits.dtype
    if model.plain or dtype == torch.float64:
        return None
    if device == "cpu" and dtype == torch.float32:
        return full_size_numba
    return _triton_twin(logits.device) if device == "cuda" else None


@cache
def _triton_twin(device: torch.device) -> ModuleType | None:
    """The module of GPU kernels, where they can run: imported when a GPU has asked for it."""
    try:
        from amg.ops import full_size_triton  # noqa: PLC0415

        full_size_triton.try_kernels(device)
    except Exception as error:  # no triton, no compiler, no headers: each raises a type of its own
        _logger.warning(
            "Triton cannot be used on %s; masks are upsampled, with more memory: %r", device, error
        )
        return None
    return full_size_triton


def _upsampled(
    model: PromptableModel, logits: torch.Tensor, frame: Frame, final_hw: tuple[int, int]
) -> Iterator[torch.Tensor]:
    """The masks at the crop's size, one at least at a time.

    A tile fits into memory at the input's size, through which it passes, and at `final_hw` too.
    """
    most = max(height * width for height, width in (final_hw, frame.input_hw))
    for tile in logits.split(max(1, _TILE_ELEMENTS // most)):
        yield model.upsample(tile, frame)
