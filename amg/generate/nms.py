"""Removing duplicates: non-maximum suppression of boxes, best score first."""

import torch
from torchvision.ops import batched_nms


def suppress_duplicates(
    boxes_xyxy: torch.Tensor, scores: torch.Tensor, iou_threshold: float
) -> torch.Tensor:
    """Index (K,) of the boxes (M, 4) to keep, by descending score.

    Two boxes are duplicates if their IoU is above the threshold. Boxes are (x0, y0, x1, y1).
    """
    # With one category this is plain NMS, but above a thousand boxes torchvision takes another
    # path, which orders ties in its own way: the original's order is that one.
    one_category = torch.zeros_like(scores)
    return batched_nms(boxes_xyxy.float(), scores.float(), one_category, iou_threshold)
