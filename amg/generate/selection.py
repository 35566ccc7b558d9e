"""Which masks of an image are its result: all that follows NMS inside the crops, in order.

Source of the first two steps: `segment_anything/automatic_mask_generator.py`. The others are beyond
the reference, and off unless they are asked for.
"""

from collections.abc import Iterable, Sequence

import torch

from amg.config import GeneratorConfig
from amg.generate.nms import suppress_duplicates
from amg.generate.overlap import find_parents, suppress_overlapping
from amg.generate.regions import clean_small_regions
from amg.ops.boxes import record_boxes_xyxy
from amg.records import Mask


def select_masks(
    masks: list[Mask],
    size_hw: tuple[int, int],
    config: GeneratorConfig,
    ties_of: str = "cpu",
) -> list[Mask]:
    """From the masks that NMS inside the crops has left to the image's; size_hw is the image's.

    ties_of: the kind of device that the model is on, where the original compares crops.

    Duplicates between crops go, small regions are cleaned, copies go by mask IoU, then areas are
    filtered, and parents are found among what is left. Areas come so late that they are those of
    the final masks, and that a filter is a filter: with it come the same masks as without, less
    some. Were they filtered before NMS, a near copy of each mask that is too large would come in
    its place, if it were only some pixels smaller.
    """
    if config.crop_n_layers > 0:
        masks = suppress_between_crops(masks, config.crop_nms_thresh, ties_of)
    if config.min_mask_region_area > 0:
        threshold = max(config.box_nms_thresh, config.crop_nms_thresh)
        masks = clean_small_regions(masks, config.min_mask_region_area, threshold)
    if config.mask_nms_thresh < 1:
        masks = suppress_overlapping(masks, config.mask_nms_thresh)
    masks = [mask for mask in masks if _has_wanted_area(mask, size_hw, config)]
    return find_parents(masks, config.parent_containment) if config.find_parents else masks


def _has_wanted_area(mask: Mask, size_hw: tuple[int, int], config: GeneratorConfig) -> bool:
    """Whether a mask of an image of `size_hw` is neither too small nor too large."""
    is_over = config.max_area is not None and mask.area > config.max_area
    fraction = mask.area / (size_hw[0] * size_hw[1])
    return config.min_area <= mask.area and not is_over and fraction <= config.max_area_fraction


def suppress_in_crops(candidates: Sequence[Mask], iou_threshold: float) -> list[Mask]:
    """NMS inside each crop by predicted IoU; crop by crop, and in each best score first."""
    return [
        masks[i]
        for masks in _by_crop(candidates)
        for i in suppress_duplicates(
            torch.from_numpy(record_boxes_xyxy(masks)),
            torch.tensor([mask.predicted_iou for mask in masks]),
            iou_threshold,
        ).tolist()
    ]


def _by_crop(masks: Sequence[Mask]) -> Iterable[list[Mask]]:
    crops: dict[tuple[object, ...], list[Mask]] = {}
    for mask in masks:
        crops.setdefault((mask.crop_layer, mask.crop_box_xywh), []).append(mask)
    return crops.values()


def suppress_between_crops(
    masks: list[Mask], iou_threshold: float, ties_of: str = "cpu"
) -> list[Mask]:
    """Of duplicates between crops keep the one from the smaller crop, which saw more detail.

    ties_of: see `suppress_duplicates`; masks of crops of one layer are ties.
    """
    if not masks:
        return []
    crop_areas = torch.tensor([mask.crop_box_xywh[2] * mask.crop_box_xywh[3] for mask in masks])
    boxes = torch.from_numpy(record_boxes_xyxy(masks))
    keep = suppress_duplicates(boxes, 1 / crop_areas, iou_threshold, ties_of)
    return [masks[i] for i in keep.tolist()]
