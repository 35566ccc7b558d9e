"""Cleaning masks of small holes and islands.

Source: `SamAutomaticMaskGenerator.postprocess_small_regions`, and remove_small_regions in
`segment_anything/utils/amg.py`.
"""

from dataclasses import replace

import cv2
import numpy as np
import torch

from amg.generate.nms import suppress_duplicates
from amg.ops import rle
from amg.ops.boxes import record_boxes_xyxy, xyxy_to_xywh
from amg.ops.full_size_plain import mask_boxes
from amg.records import Mask

_CONNECTIVITY = 8


def clean_small_regions(masks: list[Mask], min_area_px: int, nms_threshold: float) -> list[Mask]:
    """Fill holes and drop islands under `min_area_px`, then remove what became a duplicate.

    Masks that did not change win over those that did, and come first.
    """
    if not masks:
        return []
    cleaned = [_clean(mask, min_area_px) for mask in masks]
    unchanged = [after is before for before, after in zip(masks, cleaned, strict=True)]
    keep = suppress_duplicates(
        torch.from_numpy(record_boxes_xyxy(cleaned)),
        torch.tensor(unchanged, dtype=torch.float32),
        nms_threshold,
    )
    return [cleaned[i] for i in keep.tolist()]


def _clean(mask: Mask, min_area_px: int) -> Mask:
    """The mask without small holes and islands; the same object if it has none."""
    before = rle.decode(mask.rle)
    filled = fill_small_holes(before, min_area_px)
    after = drop_small_islands(filled, min_area_px)
    if after is before:
        return mask
    (box_xyxy,) = mask_boxes(torch.from_numpy(after)[None]).numpy()
    x, y, w, h = xyxy_to_xywh(box_xyxy).tolist()
    return replace(
        mask,
        rle=rle.encode_masks(after[None])[0],
        area=int(after.sum()),
        bbox_xywh=(x, y, w, h),
    )


def fill_small_holes(mask: np.ndarray, min_area_px: int) -> np.ndarray:
    """Fill the 8-connected background regions of (H, W) bool that are under `min_area_px`.

    Gives the array itself where there is none.
    """
    regions, areas = _label(~mask)
    small = areas < min_area_px
    small[0] = False
    return mask | small[regions] if small.any() else mask


def drop_small_islands(mask: np.ndarray, min_area_px: int) -> np.ndarray:
    """Drop the 8-connected regions of (H, W) bool that are under `min_area_px`.

    If all are, the largest stays. Gives the array itself where there is no small one.
    """
    regions, areas = _label(mask)
    large = areas >= min_area_px
    large[0] = False
    if large[1:].all():
        return mask
    if not large.any():
        large[1 + int(areas[1:].argmax())] = True
    return large[regions]


def _label(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Region numbers (H, W), 0 outside, and the area of each."""
    _, regions, stats, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=_CONNECTIVITY
    )
    return regions, stats[:, cv2.CC_STAT_AREA].copy()
