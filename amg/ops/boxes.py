"""Boxes of masks, and where they lie. Boxes are XYXY in pixels, by first and last index."""

import torch

_CROP_EDGE_TOLERANCE_PX = 20.0


def mask_boxes(masks: torch.Tensor) -> torch.Tensor:
    """The box around each mask, (M, H, W) bool to (M, 4) int64; all zero for an empty mask.

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


def touches_crop_edge(
    boxes_xyxy: torch.Tensor,
    crop_box_xyxy: tuple[int, int, int, int],
    size_hw: tuple[int, int],
) -> torch.Tensor:
    """Which boxes (M, 4), in the crop's pixels, end within 20 px of a crop edge inside the image.

    Such masks are probably cut off, and another crop has them whole.
    Source: `segment_anything/utils/amg.py`, is_box_near_crop_edge.
    """
    height, width = size_hw
    x0, y0, _, _ = crop_box_xyxy
    in_image = boxes_xyxy.float() + boxes_xyxy.new_tensor([x0, y0, x0, y0])
    crop = in_image.new_tensor(crop_box_xyxy)
    image = in_image.new_tensor([0, 0, width, height])
    near_crop_edge = (in_image - crop).abs() <= _CROP_EDGE_TOLERANCE_PX
    near_image_edge = (in_image - image).abs() <= _CROP_EDGE_TOLERANCE_PX
    return (near_crop_edge & ~near_image_edge).any(dim=1)
