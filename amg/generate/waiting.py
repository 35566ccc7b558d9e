"""The masks of a crop while they wait for NMS, which needs all of their boxes but no pixels."""

from collections.abc import Callable

import torch

from amg.generate.mask_batch import MaskBatch
from amg.generate.nms import suppress_duplicates
from amg.records import Rle

Encode = Callable[[torch.Tensor], list[Rle]]


class WaitingMasks:
    """Masks as low-res logits; as many as memory allows, the others encoded before their time.

    Only survivors of NMS need encoding, so that is worth putting off; run lengths are small, and
    the same whenever they are made.
    """

    def __init__(self, encode: Encode, most_bytes: int) -> None:
        """Take what encodes logits (M, h, w), and how many bytes of them may wait."""
        self._encode = encode
        self._most_bytes = most_bytes
        self._batches: list[MaskBatch] = []
        self._shapes: list[torch.Tensor | list[Rle]] = []

    def add(self, masks: MaskBatch, logits: torch.Tensor) -> None:
        """Let masks and their logits (M, h, w) wait."""
        if not len(masks):
            return
        self._batches.append(masks)
        self._shapes.append(logits)
        held = sum(shape.nbytes for shape in self._shapes if isinstance(shape, torch.Tensor))
        if held > self._most_bytes:
            self._shapes = [
                self._encode(shape) if isinstance(shape, torch.Tensor) else shape
                for shape in self._shapes
            ]

    @property
    def masks(self) -> MaskBatch:
        """All that wait, in the order in which they came."""
        return MaskBatch.concatenate(self._batches) if self._batches else MaskBatch.empty()

    def survivors(self, iou_threshold: float) -> torch.Tensor:
        """Index (K,) of the masks that NMS keeps, by descending predicted IoU."""
        masks = self.masks
        return suppress_duplicates(masks.boxes_xyxy, masks.predicted_iou, iou_threshold).cpu()

    def encode(self, keep: torch.Tensor) -> list[Rle]:
        """The run lengths of an index (K,)."""
        late: list[tuple[torch.Tensor, torch.Tensor]] = []
        encoded: dict[int, Rle] = {}
        first = 0
        for batch, shape in zip(self._batches, self._shapes, strict=True):
            kept = keep[(keep >= first) & (keep < first + len(batch))]
            rows = kept - first
            if isinstance(shape, torch.Tensor):
                late.append((kept, shape[rows.to(shape.device)]))
            else:
                encoded.update((first + row, shape[row]) for row in rows.tolist())
            first += len(batch)
        if late:
            indices, logits = (torch.cat(column) for column in zip(*late, strict=True))
            encoded.update(zip(indices.tolist(), self._encode(logits), strict=True))
        return [encoded[index] for index in keep.tolist()]
