"""Compare our masks with the original generator's, on any photos and model.

    python -m benchmarks.parity PHOTO... [--model nano] [--set generator.points_per_side=16]

Exits with 1 where a photo's masks are not the same.
"""

from pathlib import Path
from typing import Annotated

import typer

from amg.config import load_config
from amg.evaluate.parity import compare_annotations
from amg.generate.generator import MaskGenerator
from amg.io.images import decode_image
from amg.io.reading import read_bytes
from amg.models.load import load_model
from benchmarks.original import original_generator


def main(
    photos: Annotated[list[Path], typer.Argument()],
    model: Annotated[str, typer.Option()] = "nano",
    checkpoint: Annotated[Path | None, typer.Option()] = None,
    device: Annotated[str, typer.Option()] = "cpu",
    set_: Annotated[list[str] | None, typer.Option("--set", help="generator.key=value")] = None,
) -> None:
    """Print a line for each photo."""
    config = load_config(overrides=set_ or ()).generator
    generator = MaskGenerator(load_model(model, checkpoint=checkpoint, device=device), config)
    original = original_generator(generator.model, generator.config)
    exact = True
    for path in photos:
        image = decode_image(read_bytes(path)).rgb
        report = compare_annotations(
            original.generate(image), generator.generate(image).to_annotations()
        )
        exact &= report.exact
        typer.echo(
            f"{path.name}: {report.n_reference} masks, ours {report.n_ours}, "
            f"{report.n_identical} identical, least IoU {report.min_iou:.6f}, "
            f"largest score difference {report.max_score_difference:.1e}"
            f"{'' if report.exact else '  NOT EXACT'}"
        )
    raise typer.Exit(0 if exact else 1)


if __name__ == "__main__":
    typer.run(main)
