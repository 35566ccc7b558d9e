"""Scenes to training batches: an image, points on it, and the regions each point may mean."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from pipelines.train.scenes import make_views

MASK_STRIDE = 4  # the mask decoder draws at a quarter of the input
_MIN_PART_PX = 24  # smaller parts are not asked for: they are under two cells of a mask


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """B scenes of S x S pixels with P points each.

    `images` (B, S, S, 3) uint8; `points_xy` (B, P, 2) float32 in pixels; `labels` (B, 3, S, S)
    int16, the part, object and group that each pixel belongs to.
    """

    images: torch.Tensor
    points_xy: torch.Tensor
    labels: torch.Tensor

    def to(self, device: torch.device) -> "TrainingBatch":
        """The same there; from pinned memory, without waiting."""
        tensors = (self.images, self.points_xy, self.labels)
        return TrainingBatch(*(t.to(device, non_blocking=True) for t in tensors))

    def targets(self) -> torch.Tensor:
        """How much of each mask cell the regions at the points cover.

        Gives (B * P, 3, n_cells) float32 in [0, 1]; a point's three regions are nested.
        """
        return torch.cat(
            [_coverage(*pair) for pair in zip(self.labels, self.points_xy.long(), strict=True)]
        )


def _coverage(labels: torch.Tensor, points_xy: torch.Tensor) -> torch.Tensor:
    """Labels (3, S, S) and points (P, 2) of one image to (P, 3, (S / stride) ** 2)."""
    at_points = labels[:, points_xy[:, 1], points_xy[:, 0]].T
    side = labels.shape[1] // MASK_STRIDE
    # Cells of 4 x 4 pixels side by side: their mean needs no strided pooling.
    cells = labels.unflatten(1, (side, MASK_STRIDE)).unflatten(3, (side, MASK_STRIDE))
    cells = cells.permute(2, 4, 0, 1, 3).flatten(0, 1).flatten(2)
    covered = torch.zeros(len(points_xy), 3, side * side, device=labels.device)
    for plane in cells:
        covered += plane.unsqueeze(0) == at_points.unsqueeze(2)
    return covered / len(cells)


def sample_points(rng: np.random.Generator, parts: np.ndarray, n_points: int) -> np.ndarray:
    """Points (n_points, 2) as float32 x, y: half uniform over pixels, half uniform over parts.

    parts: (S, S) int32 with dense ids. Large regions need the first half, small ones the second.
    """
    areas = np.bincount(parts.ravel())
    usable = np.flatnonzero(areas >= _MIN_PART_PX)
    allowed = np.flatnonzero(areas[parts.ravel()] >= _MIN_PART_PX)
    by_pixel = rng.choice(allowed, n_points - n_points // 2)
    by_part = [
        rng.choice(np.flatnonzero(parts.ravel() == part))
        for part in rng.choice(usable, n_points // 2)
    ]
    rows, columns = np.divmod(np.concatenate([by_pixel, by_part]), parts.shape[1])
    return np.stack([columns, rows], axis=1).astype(np.float32)


class SceneStream(IterableDataset[tuple[np.ndarray, np.ndarray, np.ndarray]]):
    """An endless stream of new scenes with points; each worker has a stream of its own.

    Each scene is photographed `n_views` times, with other points.
    """

    def __init__(
        self, size_px: int, n_points: int, seed: tuple[int, ...], n_views: int = 1
    ) -> None:
        super().__init__()
        self.size_px = size_px
        self.n_points = n_points
        self.n_views = n_views
        self.seed = seed

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield image (S, S, 3) uint8, points (P, 2) float32, labels (3, S, S) int16."""
        cv2.setNumThreads(0)
        worker = get_worker_info()
        rng = np.random.default_rng([*self.seed, 0 if worker is None else worker.id])
        while True:
            for scene in make_views(rng, self.size_px, self.n_views):
                points_xy = sample_points(rng, scene.levels[0], self.n_points)
                yield scene.image, points_xy, scene.levels.astype(np.int16)


def stream_batches(
    size_px: int,
    n_points: int,
    batch_size: int,
    seed: tuple[int, ...],
    n_workers: int,
    n_views: int = 1,
) -> Iterator[TrainingBatch]:
    """An endless stream of batches, made in `n_workers` processes beside the training."""
    loader = DataLoader(
        SceneStream(size_px, n_points, seed, n_views),
        batch_size=batch_size,
        num_workers=n_workers,
        prefetch_factor=2 if n_workers else None,
        pin_memory=torch.cuda.is_available(),
    )
    for images, points_xy, labels in loader:
        yield TrainingBatch(images, points_xy, labels)
