"""Removing duplicates: non-maximum suppression of boxes, best score first."""

from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

_MANY_ON_CPU, _MANY = 1_000, 25_000  # boxes; torchvision says 4,000 and 100,000 coordinates


def suppress_duplicates(
    boxes_xyxy: torch.Tensor,
    scores: torch.Tensor,
    iou_threshold: float,
    ties_of: str | None = None,
) -> torch.Tensor:
    """Index (K,) of the boxes (M, 4) to keep, by descending score.

    Two boxes are duplicates if their IoU is above the threshold. Boxes are (x0, y0, x1, y1).
    ties_of: the kind of device whose order of many equal scores is wanted, if not the boxes' own.
    """
    boxes, scores = boxes_xyxy.float(), scores.float()
    keep = _nms(boxes, scores, iou_threshold)
    if len(boxes) <= (_MANY_ON_CPU if (ties_of or boxes.device.type) == "cpu" else _MANY):
        return keep
    # The original calls `torchvision.ops.batched_nms`, which orders ties of so many boxes anew.
    keep = keep.sort().values
    return keep[scores[keep].sort(descending=True).indices]


def _load_nms() -> Any:
    """Load torchvision's compiled NMS without the import of its package: 1.5 s and 160 MB less."""
    package = find_spec("torchvision")
    folders = (package.submodule_search_locations if package else None) or ()
    library = next((path for folder in folders for path in Path(folder).glob("_C*.so")), None)
    if library is not None:
        with suppress(OSError):  # the package itself says best what is wrong
            torch.ops.load_library(library)
    if not hasattr(torch.ops.torchvision, "nms"):
        import torchvision  # noqa: F401, PLC0415 - as it is meant to be loaded

    return torch.ops.torchvision.nms


_nms = _load_nms()
