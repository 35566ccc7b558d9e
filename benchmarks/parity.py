"""Compare our masks with the original generator's, on any photos and model.

    python -m benchmarks.parity PHOTO... [--model nano] [--set generator.points_per_side=16]
    python -m benchmarks.parity PHOTO... --precision bf16 [--against plain]

In float32 it exits with 1 where a photo's masks are not the same. Other precisions are not meant to
be: how many masks are found again says how much they change. Two runs over the same images are
compared by `amg eval RUN --against OTHER`.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from amg.config import load_config
from amg.evaluate.parity import read_annotations
from amg.evaluate.results import Comparison
from amg.evaluate.runs import compare_images, summarise_comparisons
from amg.generate.generator import MaskGenerator
from amg.inputs.images import decode_image
from amg.inputs.reading import read_bytes
from amg.models.zoo.load import load_model
from amg.records import Mask
from benchmarks.original import original_generator


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
    compared = []
    for path in photos:
        image = decode_image(read_bytes(path)).rgb
        expected, found = reference(image), generator.generate(image).masks
        compared.append(compare_images(path.name, expected, found))
        line = f"{path.name}: {_counts(summarise_comparisons(compared[-1:]))}"
        if precision == "float32":
            report = compared[-1].parity
            line += f"; {report.n_identical} identical in place, least IoU {report.min_iou:.6f}, "
            line += f"largest score difference {report.max_score_difference:.1e}"
            line += "" if report.exact else "  NOT EXACT"
        typer.echo(line)
    together = summarise_comparisons(compared)
    typer.echo(
        f"all {len(photos)}: {_counts(together)}; {together.n_identical} identical in place; "
        f"{together.n_exact} photos exact"
    )
    raise typer.Exit(0 if precision != "float32" or together.n_exact == len(photos) else 1)


def _reference(against: Reference, exact: MaskGenerator) -> Callable[[np.ndarray], Sequence[Mask]]:
    if against is Reference.ORIGINAL:
        generate = original_generator(exact.model, exact.config).generate
        return lambda image: read_annotations(generate(image))
    exact.model.plain = True
    return lambda image: exact.generate(image).masks


def _counts(comparison: Comparison) -> str:
    """How many masks there are, and how well the reference's are found again."""
    counts = f"{comparison.n_reference} masks, ours {comparison.n_ours}, found {comparison.n_found}"
    if not comparison.n_reference:
        return counts
    quantiles = comparison.best_iou_quantiles
    return f"{counts} (best IoU: median {quantiles[0.5]:.4f}, a tenth below {quantiles[0.1]:.4f})"


if __name__ == "__main__":
    typer.run(main)
