"""How well edge maps match the boundaries that people drew: ODS, OIS, AP and R50 of BSDS500.

Source: "Contour Detection and Hierarchical Image Segmentation" (2011), section 3.3, and the
benchmark's published code. What differs is in docs/evaluation.md.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from skimage.morphology import thin

from amg.errors import EvaluationError
from amg.evaluate.bsds_truth import read_drawings
from amg.evaluate.edge_map import read_edge_map
from amg.evaluate.results import EdgeScore
from amg.ops.processes import map_in_processes, workers_for
from amg.runs.watching import OnImages

N_THRESHOLDS = 99
TOLERANCE = 0.0075
"""How far matched pixels may be apart, as a share of the image's diagonal."""
_EPSILON = np.finfo(np.float64).eps
_N_BETWEEN = 100


@dataclass(frozen=True, slots=True)
class EdgeCounts:
    """Boundary pixels at each of K thresholds, (K,) int64 each; counts of images add up.

    `found` of `drawn`, over annotators: human pixels with an edge of ours; `right` of `ours`:
    edges of ours that any annotator has drawn.
    """

    found: np.ndarray
    drawn: np.ndarray
    right: np.ndarray
    ours: np.ndarray

    def __add__(self, other: "EdgeCounts") -> "EdgeCounts":
        return EdgeCounts(
            self.found + other.found,
            self.drawn + other.drawn,
            self.right + other.right,
            self.ours + other.ours,
        )

    def at(self, index: int) -> "EdgeCounts":
        """The counts at one threshold alone."""
        parts = (self.found, self.drawn, self.right, self.ours)
        return EdgeCounts(*(part[index : index + 1] for part in parts))

    @property
    def recall(self) -> np.ndarray:
        """Share of what people drew that is found, (K,)."""
        return self.found / np.maximum(self.drawn, _EPSILON)

    @property
    def precision(self) -> np.ndarray:
        """Share of ours that somebody drew, (K,)."""
        return self.right / np.maximum(self.ours, _EPSILON)


def score_edge_maps(
    pairs: Sequence[tuple[Path, Path]], workers: int | None, watch: OnImages
) -> EdgeScore:
    """Score edge maps, each with its photo's file of drawings.

    Raises EvaluationError for files that cannot be compared.
    """
    counts = []
    n_workers = workers_for(len(pairs), workers)
    for count in map_in_processes(_score_files, iter(pairs), n_workers):
        counts.append(count)
        watch(len(counts), len(pairs))
    return summarise_edges(counts)


def summarise_edges(images: Sequence[EdgeCounts]) -> EdgeScore:
    """The benchmark's four numbers from the counts of one or more images."""
    total = sum(images[1:], images[0])
    own_best = [
        image.at(int(_f_measure(image.precision, image.recall).argmax())) for image in images
    ]
    best = sum(own_best[1:], own_best[0])
    return EdgeScore(
        n_images=len(images),
        ods=_best_f(total.precision, total.recall),
        ois=float(_f_measure(best.precision, best.recall)[0]),
        ap=_average_precision(total.precision, total.recall),
        r50=_recall_at_half(total.precision, total.recall),
        precision=tuple(total.precision.tolist()),
        recall=tuple(total.recall.tolist()),
    )


def count_edges(
    edges: np.ndarray, drawings: Iterable[np.ndarray], n_thresholds: int = N_THRESHOLDS
) -> EdgeCounts:
    """Compare edges (H, W) float in [0, 1] with annotators' boundaries, (H, W) bool each.

    At thresholds k / (n + 1), k = 1 to n, edges of at least that strength are thinned to one
    pixel's width and matched with each annotator's.
    """
    drawings = list(drawings)
    n_drawn = sum(int(drawing.sum()) for drawing in drawings)
    found, right, ours = (np.zeros(n_thresholds, dtype=np.int64) for _ in range(3))
    for k in range(n_thresholds):
        thinned = thin(edges >= (k + 1) / (n_thresholds + 1))
        is_right = np.zeros(int(thinned.sum()), dtype=bool)
        for drawing in drawings:
            matched = match_pixels(thinned, drawing)
            is_right[matched] = True
            found[k] += len(matched)
        right[k], ours[k] = is_right.sum(), len(is_right)
    return EdgeCounts(found, np.full(n_thresholds, n_drawn), right, ours)


def match_pixels(ours: np.ndarray, drawn: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    """Which pixels of ours, (P,) indices in row-major order, are matched with drawn ones.

    Both (H, W) bool. As many as can be are matched, one to one, none further apart than
    `tolerance` times the diagonal.
    """
    reach_px = tolerance * float(np.hypot(*ours.shape))
    neighbours = _neighbours(ours, drawn, reach_px)
    columns = maximum_bipartite_matching(neighbours, perm_type="column")
    return np.flatnonzero(columns >= 0)


def _neighbours(ours: np.ndarray, drawn: np.ndarray, reach_px: float) -> csr_array:
    """Which drawn pixels are within reach of which of ours, a sparse (P, Q) of ones."""
    margin = int(reach_px)
    number = np.full(drawn.shape, -1)
    number[drawn] = np.arange(drawn.sum())
    number = np.pad(number, margin, constant_values=-1)
    steps = np.arange(-margin, margin + 1)
    dy, dx = (step.ravel() for step in np.meshgrid(steps, steps, indexing="ij"))
    is_near = dy**2 + dx**2 <= reach_px**2
    rows, columns = (axis[:, None] + margin for axis in np.nonzero(ours))
    near = number[rows + dy[is_near], columns + dx[is_near]]
    is_drawn = near >= 0
    starts = np.concatenate([[0], np.cumsum(is_drawn.sum(axis=1))])
    indices = near[is_drawn]
    shape = len(near), int(drawn.sum())
    return csr_array((np.ones(len(indices), np.int8), indices, starts), shape=shape)


def _score_files(pair: tuple[Path, Path]) -> EdgeCounts:
    path, truth = pair
    edges, drawings = read_edge_map(path), read_drawings(truth)
    if edges.shape != drawings[0].boundaries.shape:
        raise EvaluationError(
            f"{path}: {edges.shape} is not the size of {truth.name}, {drawings[0].labels.shape}"
        )
    return count_edges(edges, (drawing.boundaries for drawing in drawings))


def _f_measure(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    return 2 * precision * recall / np.maximum(precision + recall, _EPSILON)


def _best_f(precision: np.ndarray, recall: np.ndarray) -> float:
    """The greatest F at any threshold, between them by interpolation."""
    places = np.arange(len(recall))
    finer = np.linspace(0, len(recall) - 1, max(1, (len(recall) - 1) * _N_BETWEEN + 1))
    curves = (np.interp(finer, places, values) for values in (precision, recall))
    return float(_f_measure(*curves).max())


def _average_precision(precision: np.ndarray, recall: np.ndarray) -> float:
    """Mean of the precision at recall 0, 0.01, ..., 1, and 0 where the curve does not reach."""
    at, first = np.unique(recall, return_index=True)
    wanted = np.linspace(0, 1, 101)
    values = np.interp(wanted, at, precision[first], left=0.0, right=0.0)
    return float(values.sum() / 100) if len(at) > 1 else 0.0


def _recall_at_half(precision: np.ndarray, recall: np.ndarray) -> float:
    """Recall where precision is one half, or its least if that is more."""
    at, first = np.unique(precision, return_index=True)
    return float(np.interp(max(0.5, at[0]), at, recall[first]))
