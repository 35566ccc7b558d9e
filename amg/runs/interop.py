"""Results as other libraries hold them."""

from typing import TYPE_CHECKING

import numpy as np

from amg.errors import ImageError
from amg.ops import rle
from amg.ops.boxes import record_boxes_xyxy
from amg.records import ImageResult
from amg.runs.schema import ImageRow

if TYPE_CHECKING:
    from supervision import Detections  # pyright: ignore[reportMissingImports] - an option


def to_supervision(result: ImageRow | ImageResult) -> "Detections":
    """The masks of an image as supervision's Detections: needs the package `supervision`.

    `confidence` is the predicted IoU; stability, level and the index of the mask are in `data`.
    All masks are decoded: H x W bytes each. Raises ImageError for a row without a size, which has
    failed.
    """
    from supervision import Detections  # noqa: PLC0415  # pyright: ignore[reportMissingImports]

    height, width = _size_hw(result)
    masks = result.masks
    bits = np.zeros((len(masks), height, width), dtype=bool)
    for index, mask in enumerate(masks):
        bits[index] = rle.decode(mask.rle)
    return Detections(
        xyxy=record_boxes_xyxy(masks).astype(np.float32),
        mask=bits,
        confidence=np.array([mask.predicted_iou for mask in masks], dtype=np.float32),
        class_id=np.zeros(len(masks), dtype=int),
        data={
            "stability_score": np.array([mask.stability_score for mask in masks]),
            "level": np.array([mask.level for mask in masks], dtype=int),
            "mask_id": np.arange(len(masks)),
        },
    )


def _size_hw(result: ImageRow | ImageResult) -> tuple[int, int]:
    if isinstance(result, ImageResult):
        return result.size_hw
    if result.height is None or result.width is None:
        raise ImageError(result.status, f"{result.image_id}: it has no masks: {result.error}")
    return result.height, result.width
