"""From candidates to masks that are stable and whole: the filters that need full resolution."""

import torch

from amg.config import GeneratorConfig
from amg.generate.crops import Crop, touches_crop_edge
from amg.generate.full_size import measure_masks
from amg.generate.mask_batch import MaskBatch
from amg.models.interface import Candidates, Frame, PromptableModel


def filter_candidates(
    candidates: Candidates,
    points_xy: torch.Tensor,
    model: PromptableModel,
    frame: Frame,
    crop: Crop,
    size_hw: tuple[int, int],
    config: GeneratorConfig,
) -> tuple[MaskBatch, torch.Tensor]:
    """Measure each candidate at full resolution; keep the stable ones that the crop holds whole.

    points_xy (N, 2) are the crop's prompts; size_hw is the whole image's. Gives the masks and
    their low-res logits (M, h, w).
    """
    scores, boxes_xyxy = measure_masks(
        model,
        candidates.logits,
        frame,
        config.mask_threshold,
        config.stability_score_offset,
    )
    masks = MaskBatch(
        boxes_xyxy=boxes_xyxy,
        predicted_iou=candidates.predicted_iou,
        stability_score=scores,
        points_xy=points_xy[candidates.prompt_index],
        level=candidates.level,
        object_score=candidates.object_score,
    )
    keep = ~touches_crop_edge(boxes_xyxy, crop, size_hw)
    if config.stability_score_thresh > 0:
        keep &= scores >= config.stability_score_thresh
    if config.object_score_thresh is not None and candidates.object_score is not None:
        keep &= candidates.object_score >= config.object_score_thresh
    return masks.select(keep), candidates.logits[keep]
