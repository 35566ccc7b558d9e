"""What is known of masks on their way through the generator."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from amg.generate.crops import Crop
from amg.models.interface import join
from amg.ops import rle
from amg.ops.boxes import xyxy_to_xywh
from amg.records import Mask, Rle


@dataclass(frozen=True, slots=True)
class MaskBatch:
    """What is known of M masks but their shapes: one row of each tensor is one mask.

    `boxes_xyxy` (M, 4) int64; `predicted_iou` and `stability_score` (M,) float; `points_xy` (M, 2)
    float64; `level` (M,) int64; `object_score` (M,) float, where the model gives one. Boxes and
    points are in the crop's pixels.
    """

    boxes_xyxy: torch.Tensor
    predicted_iou: torch.Tensor
    stability_score: torch.Tensor
    points_xy: torch.Tensor
    level: torch.Tensor
    object_score: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.predicted_iou)

    def select(self, index: torch.Tensor) -> "MaskBatch":
        """Take the masks of a bool mask (M,) or an index (K,), in its order."""
        index = index.to(self.level.device)
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: c[index] for k, c in columns.items() if c is not None})

    @staticmethod
    def empty() -> "MaskBatch":
        """No masks."""
        none = torch.zeros(0)
        return MaskBatch(torch.zeros(0, 4), none, none, torch.zeros(0, 2), none)

    @staticmethod
    def concatenate(batches: "list[MaskBatch]") -> "MaskBatch":
        """Join one or more batches."""
        columns = (join([getattr(batch, f.name) for batch in batches]) for f in fields(MaskBatch))
        return MaskBatch(*columns)

    def to_records(self, encoded: Sequence[Rle], crop: Crop) -> list[Mask]:
        """Records of the masks of a crop, with their run lengths, in the image's pixels."""
        x0, y0, _, _ = crop.box_xyxy
        crop_box_xywh = crop.box_xywh
        boxes_xyxy = self.boxes_xyxy.cpu().numpy() + np.array([x0, y0, x0, y0])
        score = self.object_score
        rows = zip(
            encoded,
            xyxy_to_xywh(boxes_xyxy).tolist(),
            self.predicted_iou.tolist(),
            self.stability_score.tolist(),
            self.points_xy.tolist(),
            self.level.tolist(),
            [None] * len(self) if score is None else score.tolist(),
            strict=True,
        )
        return [
            Mask(
                rle=its_rle,
                area=rle.area(its_rle),
                bbox_xywh=(x, y, w, h),
                predicted_iou=predicted_iou,
                stability_score=stability,
                point_xy=(point[0] + x0, point[1] + y0),
                crop_box_xywh=crop_box_xywh,
                crop_layer=crop.layer,
                level=level,
                object_score=object_score,
            )
            for its_rle, (x, y, w, h), predicted_iou, stability, point, level, object_score in rows
        ]
