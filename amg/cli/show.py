"""`amg show` and `amg models`: look at one image, and at what there is to look with."""

from pathlib import Path
from typing import Annotated

import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

from amg.cli.options import (
    CheckpointOption,
    ConfigOption,
    DeviceOption,
    ModelOption,
    SetOption,
    errors,
    resolve_config,
)
from amg.errors import ImageError, OutputError


def show(
    image: Annotated[Path, typer.Argument(help="An image file.")],
    out: Annotated[Path, typer.Option("--out", help="The PNG to write.")],
    model: ModelOption = None,
    checkpoint: CheckpointOption = None,
    device: DeviceOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    side_by_side: Annotated[bool, typer.Option(help="Put the image beside its masks.")] = False,
) -> None:
    """Segment one image and draw the masks over it."""
    from amg.io.images import decode_image  # noqa: PLC0415 - torch only when needed
    from amg.io.reading import read_bytes  # noqa: PLC0415
    from amg.view.overlay import draw_overlay, draw_side_by_side  # noqa: PLC0415
    from pipelines.worker import make_generator  # noqa: PLC0415

    named = {"name": model, "checkpoint": checkpoint, "device": device}
    resolved = resolve_config(config, set_, model=named)
    try:
        rgb = decode_image(read_bytes(image), max_pixels=resolved.run.max_image_pixels).rgb
    except ImageError as error:
        raise ImageError(error.status, f"{image}: {error}") from error
    masks = make_generator(resolved).generate(rgb).masks
    picture = (draw_side_by_side if side_by_side else draw_overlay)(rgb, masks)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(out, format="PNG")
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error}") from error
    errors.print(f"{len(masks)} masks: {out}", markup=False, soft_wrap=True)


def models() -> None:
    """List the models, and where their weights are looked for."""
    from amg.models.registry import MODELS  # noqa: PLC0415 - torch only when needed

    table = Table("name", "what it is", "weights")
    for spec in MODELS.values():
        table.add_row(spec.name, spec.description, spec.where())
    Console().print(table)
