"""Scenes to training batches: images, what is asked about them, and the regions that are meant."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from amg.ops.boxes import xyxy_to_xywh
from pipelines.train.scenes import make_views

MASK_STRIDE = 4  # the mask decoder draws at a quarter of the input
N_LEVELS = 3
_MIN_PART_PX = 24  # smaller parts are not asked for: they are under two cells of a mask
_JITTER_SHARE, _MOST_JITTER_PX = 0.1, 20.0  # of a box's sides, as SAM's were (paper, appendix A)


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """B scenes of S x S pixels, each asked by P points and by Q boxes.

    `images` (B, S, S, 3) uint8; `labels` (B, 3, S, S) int16, the part, object and group that each
    pixel belongs to. `points_xy` (B, P, 2) float32 in pixels; a point may mean each of its three
    regions. `boxes_xyxy` (B, Q, 4) float32 are around the region that `anchors_xy` (B, Q, 2) has
    at `levels` (B, Q) int64.
    """

    images: torch.Tensor
    labels: torch.Tensor
    points_xy: torch.Tensor
    boxes_xyxy: torch.Tensor
    anchors_xy: torch.Tensor
    levels: torch.Tensor

    def to(self, device: torch.device) -> "TrainingBatch":
        """The same there; from pinned memory, without waiting."""
        tensors = (getattr(self, field.name) for field in fields(self))
        return TrainingBatch(*(t.to(device, non_blocking=True) for t in tensors))

    def images_of(self, some: slice) -> "TrainingBatch":
        """The batch of some of the images."""
        tensors = (getattr(self, field.name) for field in fields(self))
        return TrainingBatch(*(t[some] for t in tensors))

    def targets(self) -> torch.Tensor:
        """How much of each mask cell the regions at the points and at the boxes' anchors cover.

        Gives (B * (P + Q), 3, n_cells) float32 in [0, 1]; a point's three regions are nested.
        """
        places = torch.cat([self.points_xy, self.anchors_xy], dim=1).long()
        return torch.cat([_coverage(*pair) for pair in zip(self.labels, places, strict=True)])


def _coverage(labels: torch.Tensor, points_xy: torch.Tensor) -> torch.Tensor:
    """Labels (3, S, S) and points (P, 2) of one image to (P, 3, (S / stride) ** 2)."""
    at_points = labels[:, points_xy[:, 1], points_xy[:, 0]].T
    side = labels.shape[1] // MASK_STRIDE
    # Cells of 4 x 4 pixels side by side: their mean needs no strided pooling.
    cells = labels.unflatten(1, (side, MASK_STRIDE)).unflatten(3, (side, MASK_STRIDE))
    cells = cells.permute(2, 4, 0, 1, 3).flatten(0, 1).flatten(2)
    covered = torch.zeros(len(points_xy), N_LEVELS, side * side, device=labels.device)
    for plane in cells:
        covered += plane.unsqueeze(0) == at_points.unsqueeze(2)
    return covered / len(cells)


def sample_points(rng: np.random.Generator, parts: np.ndarray, n_points: int) -> np.ndarray:
    """Points (n_points, 2) as float32 x, y: half uniform over pixels, half uniform over parts.

    parts: (S, S) int32 with dense ids. Large regions need the first half, small ones the second.
    """
    flat = parts.ravel()
    areas = np.bincount(flat)
    usable = np.flatnonzero(areas >= _MIN_PART_PX)
    allowed = np.flatnonzero(areas[flat] >= _MIN_PART_PX)
    by_pixel = rng.choice(allowed, n_points - n_points // 2)
    by_part = [
        rng.choice(np.flatnonzero(flat == part)) for part in rng.choice(usable, n_points // 2)
    ]
    rows, columns = np.divmod(np.concatenate([by_pixel, by_part]), parts.shape[1])
    return np.stack([columns, rows], axis=1).astype(np.float32)


def jittered_box(rng: np.random.Generator, region: np.ndarray) -> np.ndarray:
    """A box (4,) float32 XYXY around a region (S, S) bool, as loose as people draw it."""
    rows, columns = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)
    sides = np.tile(xyxy_to_xywh(box)[2:], 2)
    most = np.minimum(_JITTER_SHARE * sides, _MOST_JITTER_PX)
    jitter = np.clip(rng.normal(0, most), -2 * most, 2 * most)
    return np.clip(box + jitter, 0, len(region)).astype(np.float32)


Sample = tuple[np.ndarray, ...]
"""Of one scene, the fields of a `TrainingBatch`."""


class SceneStream(IterableDataset[Sample]):
    """An endless stream of new scenes with prompts; each worker has a stream of its own.

    Each scene is photographed `n_views` times, with other prompts.
    """

    def __init__(
        self, size_px: int, n_points: int, n_boxes: int, seed: tuple[int, ...], n_views: int = 1
    ) -> None:
        super().__init__()
        self.size_px = size_px
        self.n_points = n_points
        self.n_boxes = n_boxes
        self.n_views = n_views
        self.seed = seed

    def __iter__(self) -> Iterator[Sample]:
        """Yield the fields of a `TrainingBatch` for one scene after the other."""
        cv2.setNumThreads(0)
        worker = get_worker_info()
        rng = np.random.default_rng([*self.seed, 0 if worker is None else worker.id])
        while True:
            for scene in make_views(rng, self.size_px, self.n_views):
                labels = scene.levels.astype(np.int16)
                points_xy = sample_points(rng, scene.levels[0], self.n_points + self.n_boxes)
                order = rng.permutation(len(points_xy))
                points_xy, anchors_xy = np.split(points_xy[order], [self.n_points])
                levels = rng.integers(0, N_LEVELS, self.n_boxes)
                boxes_xyxy = [
                    jittered_box(rng, labels[level] == labels[level, int(y), int(x)])
                    for level, (x, y) in zip(levels, anchors_xy, strict=True)
                ]
                boxes = np.array(boxes_xyxy, np.float32).reshape(-1, 4)
                yield scene.image, labels, points_xy, boxes, anchors_xy, levels


def stream_batches(stream: SceneStream, batch_size: int, n_workers: int) -> Iterator[TrainingBatch]:
    """An endless stream of batches, made in `n_workers` processes beside the training."""
    loader = DataLoader(
        stream,
        batch_size=batch_size,
        num_workers=n_workers,
        prefetch_factor=2 if n_workers else None,
        pin_memory=torch.cuda.is_available(),
    )
    for tensors in loader:
        yield TrainingBatch(*tensors)
