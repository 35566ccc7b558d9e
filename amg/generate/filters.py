"""From candidates to masks that are stable and whole: the filters that need full resolution."""

import torch

from amg.config import GeneratorConfig
from amg.generate.crops import Crop
from amg.generate.mask_batch import MaskBatch
from amg.models.interface import Candidates, Frame, PromptableModel
from amg.ops.boxes import mask_boxes, touches_crop_edge
from amg.ops.stability import stability_score

# Full-resolution logits that exist at once: bounds memory whatever the image's size.
_TILE_ELEMENTS = 32 * 1024 * 1024


def filter_candidates(
    candidates: Candidates,
    points_xy: torch.Tensor,
    model: PromptableModel,
    frame: Frame,
    crop: Crop,
    size_hw: tuple[int, int],
    config: GeneratorConfig,
) -> MaskBatch:
    """Measure each candidate at full resolution; keep the stable ones that the crop holds whole.

    points_xy (N, 2) are the chunk's prompts; size_hw is the whole image's.
    """
    logits = candidates.logits
    chunks = [
        _measure(model.upsample(chunk, frame), model.mask_threshold, config.stability_score_offset)
        for chunk in logits.split(masks_per_tile(frame.size_hw, frame.input_hw))
    ]
    scores, boxes_xyxy = (torch.cat(parts) for parts in zip(*chunks, strict=True))
    masks = MaskBatch(
        logits=logits,
        boxes_xyxy=boxes_xyxy,
        predicted_iou=candidates.predicted_iou,
        stability_score=scores,
        points_xy=points_xy[candidates.prompt_index],
        level=candidates.level,
    )
    keep = ~touches_crop_edge(boxes_xyxy, crop.box_xyxy, size_hw)
    if config.stability_score_thresh > 0:
        keep &= scores >= config.stability_score_thresh
    return masks.select(keep)


def masks_per_tile(*sizes_hw: tuple[int, int]) -> int:
    """How many masks may exist at once that pass through all of these sizes: one at least."""
    return max(1, _TILE_ELEMENTS // max(height * width for height, width in sizes_hw))


def _measure(
    logits: torch.Tensor, threshold: float, offset: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Stability (M,) and box (M, 4) of full-resolution logits (M, H, W)."""
    return stability_score(logits, threshold, offset), mask_boxes(logits > threshold)
