"""What people drew on the photographs of BSDS500.

Format: `groundTruth/{train,val,test}/ID.mat`, a MATLAB cell of one struct an annotator, with a
label map `Segmentation` (H, W) and the pixels between its regions, `Boundaries` (H, W).
https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/resources.html
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from amg.errors import EvaluationError
from amg.evaluate.partners import TruthName


@dataclass(frozen=True, slots=True)
class Drawing:
    """What one annotator drew: `labels` (H, W) int64 of any values, `boundaries` (H, W) bool."""

    labels: np.ndarray
    boundaries: np.ndarray

    @property
    def regions(self) -> np.ndarray:
        """One mask a label, (R, H, W) bool."""
        values = np.unique(self.labels)
        return self.labels == values[:, None, None]


def list_bsds(folder: Path) -> list[TruthName[Path]]:
    """The files of a folder: BSDS500 as published, its ground truth, or one split of it.

    As published there is more beside `groundTruth`: `ucm2/{train,val,test}/ID.mat`, of a method.
    """
    paths = sorted(folder.rglob("*.mat"))
    drawn = [path for path in paths if "groundTruth" in path.relative_to(folder).parts]
    return [TruthName(path, path.stem) for path in drawn or paths]


def read_drawings(path: Path) -> list[Drawing]:
    """All annotators' drawings of one photo. Raises EvaluationError for what has none."""
    try:
        cells: Any = loadmat(path)["groundTruth"]
        drawings = [
            Drawing(
                cell["Segmentation"][0, 0].astype(np.int64),
                cell["Boundaries"][0, 0].astype(bool),
            )
            for cell in cells.ravel()
        ]
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise EvaluationError(f"{path}: no ground truth of BSDS: {error!r}") from error
    except (NotImplementedError, MatReadError) as error:  # MATLAB's newer format; cut short
        raise EvaluationError(f"{path}: cannot be read: {error}") from error
    if not drawings or any(
        part.ndim != 2 or part.shape != drawings[0].labels.shape
        for drawing in drawings
        for part in (drawing.labels, drawing.boundaries)
    ):
        raise EvaluationError(f"{path}: no drawings, or not all of one size")
    return drawings
