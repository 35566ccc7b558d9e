"""Overlapping crops of an image, and which boxes their edges cut.

Source: `segment_anything/utils/amg.py`, generate_crop_boxes and is_box_near_crop_edge.
"""

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch

from amg.ops.boxes import xyxy_to_xywh

_EDGE_TOLERANCE_PX = 20.0


@dataclass(frozen=True, slots=True)
class Crop:
    """A rectangle of the image, in its pixels, and the layer of crops it belongs to."""

    box_xyxy: tuple[int, int, int, int]
    layer: int

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        x0, y0, x1, y1 = self.box_xyxy
        return y1 - y0, x1 - x0

    @property
    def box_xywh(self) -> tuple[int, int, int, int]:
        """The same rectangle by its corner and size."""
        x, y, w, h = xyxy_to_xywh(np.array(self.box_xyxy)).tolist()
        return x, y, w, h


def crop_image(
    size_hw: tuple[int, int], n_layers: int, overlap_ratio: float, *, skip_image: bool = False
) -> list[Crop]:
    """The whole image, unless it is skipped, then layers of 2, 4, 8, ... crops a side.

    Layers go column by column. Crops of layer i overlap by `overlap_ratio` of the image's short
    side over 2 ** (i - 1).
    Crops that a very flat image leaves without a pixel, on which the original fails, are left out.
    """
    height, width = size_hw
    crops = [] if skip_image else [Crop((0, 0, width, height), 0)]
    for layer in range(1, n_layers + 1):
        n_per_side = 2**layer
        overlap = int(overlap_ratio * min(size_hw) * (2 / n_per_side))
        columns = _spans(width, n_per_side, overlap)
        rows = _spans(height, n_per_side, overlap)
        crops += [
            Crop((x0, y0, x1, y1), layer)
            for (x0, x1), (y0, y1) in product(columns, rows)
            if x0 < x1 and y0 < y1
        ]
    return crops


def _spans(length: int, n: int, overlap: int) -> list[tuple[int, int]]:
    """The n overlapping spans (start, stop) that cover `length` pixels."""
    span = math.ceil((overlap * (n - 1) + length) / n)
    return [((span - overlap) * i, min((span - overlap) * i + span, length)) for i in range(n)]


def touches_crop_edge(
    boxes_xyxy: torch.Tensor, crop: Crop, size_hw: tuple[int, int]
) -> torch.Tensor:
    """Which boxes (M, 4), in the crop's pixels, end within 20 px of a crop edge inside the image.

    Such masks are probably cut off, and another crop has them whole. size_hw is the image's.
    """
    height, width = size_hw
    x0, y0, _, _ = crop.box_xyxy
    in_image = boxes_xyxy.float() + boxes_xyxy.new_tensor([x0, y0, x0, y0])
    crop_edges = in_image.new_tensor(crop.box_xyxy)
    image_edges = in_image.new_tensor([0, 0, width, height])
    near_crop_edge = (in_image - crop_edges).abs() <= _EDGE_TOLERANCE_PX
    near_image_edge = (in_image - image_edges).abs() <= _EDGE_TOLERANCE_PX
    return (near_crop_edge & ~near_image_edge).any(dim=1)
