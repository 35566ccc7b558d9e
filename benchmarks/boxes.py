"""Time many boxes on one encoded image: ours beside `SamPredictor.predict_torch`, same weights.

    python -m benchmarks.boxes [PHOTO...] [--model nano] [--imgsz 1024] [--boxes 1000] [--random]

Both are in this process and take turns. Of each box's three masks both keep that of the highest
predicted IoU. Ours gives records: run lengths, area, box, stability. The original gives arrays of
pixels, 64 boxes at a time; what pycocotools then needs for run lengths is a column of its own.
"""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
import typer
from pycocotools import mask as coco
from segment_anything import SamPredictor

from amg.inputs.pixels import as_pixels
from amg.models.families.sam import SAMModel
from amg.models.zoo.load import load_model
from amg.ops import rle
from amg.predict.predictor import MaskPredictor
from amg.records import Prompt
from benchmarks.original import original_sam
from benchmarks.photos import given_or_default
from benchmarks.random_model import random_model
from benchmarks.setting import load_average, this_machine

_AT_ONCE = 64  # boxes, as the original generator takes points
_HEAD = """\
| photo | MP | boxes | ours, s | original, s | times faster | its run lengths, s | masks alike |
|---|---|---|---|---|---|---|---|"""


def main(
    photos: Annotated[list[Path] | None, typer.Argument()] = None,
    model: Annotated[str, typer.Option()] = "nano",
    imgsz: Annotated[int | None, typer.Option(help="Side of the model's input, in pixels.")] = None,
    device: Annotated[str, typer.Option()] = "cpu",
    boxes: Annotated[int, typer.Option(min=1)] = 1000,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; the median counts.")] = 1,
    random: Annotated[bool, typer.Option(help="Random weights: for time alone.")] = False,
) -> None:
    """Print a line for each photo, as a Markdown table. Encoding the image is in no time."""
    load = load_average()
    make = random_model if random else load_model
    ours = make(model, imgsz=imgsz, device=device)
    assert isinstance(ours, SAMModel), "SamPredictor knows no other"
    predictor, original = MaskPredictor(ours), SamPredictor(original_sam(ours))
    typer.echo(f"{model} at {ours.imgsz} px, {this_machine(device)}, load {load:.1f}\n\n{_HEAD}")
    with given_or_default(photos) as paths, torch.inference_mode():
        for path in paths:
            typer.echo(_line(path, predictor, original, boxes, repeats))


def _line(
    path: Path, predictor: MaskPredictor, original: SamPredictor, n_boxes: int, repeats: int
) -> str:
    image = as_pixels(path)
    predictor.set_image(image)
    original.set_image(image)
    boxes_xyxy = random_boxes(n_boxes, image.shape[:2])
    prompts = [Prompt(box_xyxy=tuple(box)) for box in boxes_xyxy.tolist()]
    predictor.predict_batch(prompts[:8])  # compilers and caches are warm
    best_masks(original, boxes_xyxy[:8])
    rounds = [
        (_timed(predictor.predict_batch, prompts), _timed(best_masks, original, boxes_xyxy))
        for _ in range(repeats)
    ]
    (_, answers), (_, masks) = rounds[-1]
    rle_s, _ = _timed(coco.encode, np.asfortranarray(masks.transpose(1, 2, 0).view(np.uint8)))
    alike = [_iou(rle.decode(mask.rle), its) for (mask,), its in zip(answers, masks, strict=True)]
    ours_s, theirs_s = (median(times[who][0] for times in rounds) for who in (0, 1))
    n_same, n_close = (sum(iou >= least for iou in alike) for least in (1, 0.999))
    return (
        f"| {path.name} | {image.size / 3e6:.2f} | {n_boxes:,} | {ours_s:.2f} | {theirs_s:.2f} | "
        f"{theirs_s / ours_s:.1f} x | {rle_s:.2f} | {n_close}, {n_same} identical |"
    )


def random_boxes(n: int, size_hw: tuple[int, int]) -> np.ndarray:
    """Boxes (N, 4) XYXY of 5 % to 50 % of each side, the same at each call."""
    rng = np.random.default_rng(0)
    sides = rng.uniform(0.05, 0.5, (n, 2))
    corners = rng.uniform(0, 1 - sides)
    return np.concatenate([corners, corners + sides], axis=1) * np.tile(size_hw[::-1], 2)


def best_masks(original: SamPredictor, boxes_xyxy: np.ndarray) -> np.ndarray:
    """Of each box the original's best of three masks, (N, H, W) bool."""
    found = []
    for some in np.array_split(boxes_xyxy, -(-len(boxes_xyxy) // _AT_ONCE)):
        boxes = original.transform.apply_boxes(some, original.original_size)
        boxes = torch.as_tensor(boxes, dtype=torch.float, device=original.device)
        masks, scores, _ = original.predict_torch(None, None, boxes, multimask_output=True)
        best = masks[torch.arange(len(masks)), scores.argmax(dim=1)]
        found.append(best.cpu().numpy())
    return np.concatenate(found)


def _timed(function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - started, result


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    union = int((one | other).sum())
    return float((one & other).sum()) / union if union else 1.0


if __name__ == "__main__":
    typer.run(main)
