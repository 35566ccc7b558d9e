"""What is known of masks on their way through the generator."""

from dataclasses import dataclass, fields, replace

import torch


@dataclass(frozen=True, slots=True)
class MaskBatch:
    """What is known of M masks but their shapes: one row of each tensor is one mask.

    `boxes_xyxy` (M, 4) int64; `predicted_iou` and `stability_score` (M,) float; `points_xy` (M, 2)
    float64; `level` (M,) int64. Boxes and points are in the crop's pixels.
    """

    boxes_xyxy: torch.Tensor
    predicted_iou: torch.Tensor
    stability_score: torch.Tensor
    points_xy: torch.Tensor
    level: torch.Tensor

    def __len__(self) -> int:
        return len(self.predicted_iou)

    def select(self, index: torch.Tensor) -> "MaskBatch":
        """Take the masks of a bool mask (M,) or an index (K,), in its order."""
        rows = {f.name: getattr(self, f.name)[index.to(self.level.device)] for f in fields(self)}
        return replace(self, **rows)

    @staticmethod
    def empty() -> "MaskBatch":
        """No masks."""
        none = torch.zeros(0)
        return MaskBatch(torch.zeros(0, 4), none, none, torch.zeros(0, 2), none)

    @staticmethod
    def concatenate(batches: "list[MaskBatch]") -> "MaskBatch":
        """Join one or more batches."""
        columns = {
            f.name: torch.cat([getattr(batch, f.name) for batch in batches])
            for f in fields(MaskBatch)
        }
        return MaskBatch(**columns)
