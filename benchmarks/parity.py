"""Compare our masks with the original generator's, on any photos and model.

    python -m benchmarks.parity PHOTO... [--model nano] [--set generator.points_per_side=16]
    python -m benchmarks.parity PHOTO... --precision bf16 [--against plain]

In float32 it exits with 1 where a photo's masks are not the same. Other precisions are not meant to
be: how many masks are found again says how much they change.
"""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from amg.config import load_config
from amg.evaluate.parity import MIN_IOU_FOUND, best_ious, compare_annotations
from amg.generate.generator import MaskGenerator
from amg.io.images import decode_image
from amg.io.reading import read_bytes
from amg.models.load import load_model
from benchmarks.original import original_generator

Annotations = list[dict[str, Any]]


class Reference(StrEnum):
    """What ours is compared with: the original generator, or ours in float32, the plain way."""

    ORIGINAL = "original"
    PLAIN = "plain"


def main(
    photos: Annotated[list[Path], typer.Argument()],
    model: Annotated[str, typer.Option()] = "nano",
    checkpoint: Annotated[Path | None, typer.Option()] = None,
    imgsz: Annotated[int | None, typer.Option(help="Side of the model's input, in pixels.")] = None,
    device: Annotated[str, typer.Option()] = "cpu",
    precision: Annotated[
        str, typer.Option(help="Of ours; the reference is in float32.")
    ] = "float32",
    against: Annotated[Reference, typer.Option()] = Reference.ORIGINAL,
    set_: Annotated[list[str] | None, typer.Option("--set", help="generator.key=value")] = None,
) -> None:
    """Print a line for each photo, and one for all."""
    overrides = [*(set_ or ()), f"model.precision={precision}"]
    config = load_config(overrides=overrides)
    given = {"checkpoint": checkpoint, "device": device, "imgsz": imgsz}
    of_float32 = load_model(model, **given)
    ours = load_model(model, **given, precision=config.model.precision)
    generator = MaskGenerator(ours, config.generator)
    reference = _reference(against, MaskGenerator(of_float32, config.generator))
    ious, n_ours, n_identical, n_exact = [], 0, 0, 0
    for path in photos:
        image = decode_image(read_bytes(path)).rgb
        expected, found = reference(image), generator.generate(image).to_annotations()
        report = compare_annotations(expected, found)
        ious.append(best_ious(expected, found))
        n_ours += report.n_ours
        n_identical += report.n_identical
        n_exact += report.exact
        line = f"{path.name}: {_counts(ious[-1], report.n_ours)}"
        if precision == "float32":
            line += f"; {report.n_identical} identical in place, least IoU {report.min_iou:.6f}, "
            line += f"largest score difference {report.max_score_difference:.1e}"
            line += "" if report.exact else "  NOT EXACT"
        typer.echo(line)
    together = np.concatenate(ious)
    typer.echo(
        f"all {len(photos)}: {_counts(together, n_ours)}; {n_identical} identical in place; "
        f"{n_exact} photos exact"
    )
    raise typer.Exit(0 if precision != "float32" or n_exact == len(photos) else 1)


def _reference(against: Reference, exact: MaskGenerator) -> Callable[[np.ndarray], Annotations]:
    if against is Reference.ORIGINAL:
        return original_generator(exact.model, exact.config).generate
    exact.model.plain = True
    return lambda image: exact.generate(image).to_annotations()


def _counts(ious: np.ndarray, n_ours: int) -> str:
    """How many masks there are, and how well the reference's are found again."""
    found = f"{len(ious)} masks, ours {n_ours}, found {(ious >= MIN_IOU_FOUND).sum()}"
    if not len(ious):
        return found
    tenth, half = np.quantile(ious, (0.1, 0.5))
    return f"{found} (best IoU: median {half:.4f}, a tenth below {tenth:.4f})"


if __name__ == "__main__":
    typer.run(main)
