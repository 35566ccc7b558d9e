"""Removing duplicates: non-maximum suppression of boxes, best score first."""

import torch
from torchvision.ops import nms


def suppress_duplicates(
    boxes_xyxy: torch.Tensor, scores: torch.Tensor, iou_threshold: float
) -> torch.Tensor:
    """Index (K,) of the boxes (M, 4) to keep, by descending score; ties in their given order.

    Two boxes are duplicates if their IoU is above the threshold. Boxes are (x0, y0, x1, y1).
    """
    return nms(boxes_xyxy.float(), scores, iou_threshold)
