"""The scene: a photograph and its three nested label maps."""

from dataclasses import dataclass

import numpy as np

from pipelines.train.scenes.canvas import Canvas

LEVELS = 3


@dataclass(frozen=True)
class Scene:
    """A synthetic photograph with the visible regions of every pixel.

    `image` (H,W,3) uint8 RGB. `levels` (3,H,W) int32: parts, objects, groups; ids dense from 0 at
    each level, every part in one object, every object in one group, no pixel without a label.
    A region may be small or in several pieces where others lie before it.
    """

    image: np.ndarray
    levels: np.ndarray


def finish_labels(canvas: Canvas, least_px: int) -> np.ndarray:
    """Label maps (3,H,W) int32 of a canvas; parts seen with fewer than `least_px` pixels join
    the largest part of their object.
    """
    owners = np.array(canvas.object_of_part)
    groups = np.array(canvas.group_of_object)[owners]
    area = np.bincount(canvas.part.ravel(), minlength=len(owners))
    order = np.argsort(-area, kind="stable")
    _, first = np.unique(owners[order], return_index=True)
    largest = np.zeros(owners.max() + 1, np.int64)
    largest[owners[order][first]] = order[first]
    merged = np.where(area < least_px, largest[owners], np.arange(len(owners)))
    seen = np.bincount(merged, weights=area, minlength=len(owners)) > 0
    tables = (_dense(np.arange(len(owners)), seen), _dense(owners, seen), _dense(groups, seen))
    levels = np.empty((LEVELS, *canvas.part.shape), np.int32)
    for level, table in zip(levels, tables, strict=True):
        np.take(table[merged].astype(np.int32), canvas.part, out=level, mode="clip")
    return levels


def _dense(labels: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Renumber the labels of seen parts to 0..n-1; others get 0 and are never looked up."""
    used = np.zeros(labels.max() + 1, bool)
    used[labels[seen]] = True
    return (np.cumsum(used) - 1)[labels].clip(0)
