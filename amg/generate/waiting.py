"""The masks of a crop while they wait for NMS, which needs all of their boxes but no pixels."""

from collections.abc import Callable, Iterator

import torch

from amg.generate.mask_batch import MaskBatch
from amg.generate.nms import suppress_duplicates
from amg.ops.outline_logits import OutlineLogits
from amg.records import Rle

Encode = Callable[[torch.Tensor], list[Rle]]
Shapes = torch.Tensor | OutlineLogits
"""Logits (M, h, w), or what is needed of them."""

_ENCODED_BYTES = 2**26  # of logits that are encoded at once


class WaitingMasks:
    """Masks by their low-res shapes; as many as memory allows, others encoded before their time.

    Only survivors of NMS need encoding, so that is worth putting off; run lengths are small, and
    the same whenever they are made.
    """

    def __init__(self, encode: Encode, most_bytes: int) -> None:
        """Take what encodes logits (M, h, w), and how many bytes of shapes may wait."""
        self._encode = encode
        self._most_bytes = most_bytes
        self._batches: list[MaskBatch] = []
        self._shapes: list[Shapes | list[Rle]] = []

    def add(self, masks: MaskBatch, shapes: Shapes) -> None:
        """Let masks and their shapes wait."""
        if not len(masks):
            return
        self._batches.append(masks)
        self._shapes.append(shapes)
        held = sum(shapes.nbytes for shapes in self._shapes if not isinstance(shapes, list))
        if held > self._most_bytes:
            self._shapes = [
                shapes if isinstance(shapes, list) else self._encode(_whole(shapes))
                for shapes in self._shapes
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
        encoded: dict[int, Rle] = {}
        late: list[tuple[torch.Tensor, torch.Tensor]] = []
        first = 0
        for batch, shapes in zip(self._batches, self._shapes, strict=True):
            kept = keep[(keep >= first) & (keep < first + len(batch))]
            rows = kept - first
            if isinstance(shapes, list):
                encoded.update((first + row, shapes[row]) for row in rows.tolist())
            else:
                late.append((kept, shapes[rows.to(batch.level.device)]))
            first += len(batch)
            if sum(logits.nbytes for _, logits in late) > _ENCODED_BYTES:
                encoded.update(self._encoded(late))
                late = []
        encoded.update(self._encoded(late))
        return [encoded[index] for index in keep.tolist()]

    def _encoded(self, late: list[tuple[torch.Tensor, torch.Tensor]]) -> Iterator[tuple[int, Rle]]:
        """Indices (K,) and their logits (K, h, w), as each index with its run lengths."""
        if late:
            indices, logits = (torch.cat(column) for column in zip(*late, strict=True))
            yield from zip(indices.tolist(), self._encode(logits), strict=True)


def _whole(shapes: Shapes) -> torch.Tensor:
    """All logits (M, h, w), without a copy where they are there: memory is short."""
    return shapes if isinstance(shapes, torch.Tensor) else shapes[torch.arange(len(shapes))]
