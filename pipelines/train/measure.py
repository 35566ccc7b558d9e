"""Measure a model's masks against what people drew on BSDS500 photographs.

    python -m pipelines.train.measure --bsds BSDS500 --checkpoint nano.safetensors

The folder holds `images/SPLIT/*.jpg` and `groundTruth/SPLIT/*.mat`, as published.
"""

import logging
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from scipy.io import loadmat

from amg.config import load_config
from amg.evaluate.regions import RegionScore, average_recall, mean_covering, score_regions
from amg.generate.generator import MaskGenerator
from amg.io.images import decode_image
from amg.io.reading import read_bytes
from amg.models.load import load_model
from amg.ops import rle
from amg.records import ImageResult

logger = logging.getLogger(__name__)


def load_segmentations(path: Path) -> list[np.ndarray]:
    """The annotators' label maps (H, W) of one photo."""
    ground_truth: Any = loadmat(path)["groundTruth"]
    return [entry["Segmentation"][0, 0].astype(np.int64) for entry in ground_truth[0]]


def best_masks(result: ImageResult, most: int) -> np.ndarray:
    """The `most` masks of highest predicted IoU times stability, (M, H, W) bool."""
    ranked = sorted(
        result.masks, key=lambda mask: mask.predicted_iou * mask.stability_score, reverse=True
    )
    if not ranked:
        return np.zeros((0, *result.size_hw), dtype=bool)
    return np.stack([rle.decode(mask.rle) for mask in ranked[:most]])


def main(
    bsds: Annotated[Path, typer.Option(help="Folder of BSDS500.")],
    model: Annotated[str, typer.Option()] = "nano",
    checkpoint: Annotated[
        Path | None, typer.Option(help="Weights, if not the model's own.")
    ] = None,
    split: Annotated[str, typer.Option()] = "val",
    limit: Annotated[int, typer.Option(help="The first N photos, by name.")] = 25,
    max_masks: Annotated[int, typer.Option(help="Masks counted on each photo.")] = 150,
    imgsz: Annotated[int | None, typer.Option(help="Side of the model's input, in pixels.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="generator.key=value")] = None,
) -> None:
    """Print region covering and average recall over a split."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    generator = MaskGenerator(
        load_model(model, checkpoint=checkpoint, imgsz=imgsz),
        load_config(overrides=set_ or ()).generator,
    )
    scores: list[RegionScore] = []
    counts: list[int] = []
    for path in sorted((bsds / "images" / split).glob("*.jpg"))[:limit]:
        result = generator.generate(decode_image(read_bytes(path)).rgb)
        masks = best_masks(result, max_masks)
        truth = load_segmentations(bsds / "groundTruth" / split / f"{path.stem}.mat")
        scores.append(score_regions(masks, truth))
        counts.append(len(masks))
    logger.info(
        "%s: %d photos, covering %.3f, AR %.3f, %.0f masks a photo",
        generator.model.info.name,
        len(scores),
        mean_covering(scores),
        average_recall(scores),
        float(np.mean(counts)),
    )


if __name__ == "__main__":
    typer.run(main)
