"""`amg show` and `amg models`: look at one image, and at what there is to look with."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from PIL import Image

from amg.cli.answers import show_table
from amg.cli.options import (
    CheckpointOption,
    ConfigOption,
    DeviceOption,
    ModelOption,
    SetOption,
    errors,
    resolve_config,
)
from amg.errors import ConfigError, ImageError, OutputError
from amg.records import Mask

if TYPE_CHECKING:
    import numpy as np

    from amg.config import Config


class Labels(StrEnum):
    """What `--labels` can write into masks."""

    ID = "id"
    SCORE = "score"
    CATEGORY = "category"


def show(
    image: Annotated[str, typer.Argument(help="An image file; with --from, an image's id.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The PNG to write; default: NAME.masks.png here.")
    ] = None,
    from_run: Annotated[
        str | None, typer.Option("--from", metavar="RUN", help="Show what a run has found.")
    ] = None,
    model: ModelOption = None,
    checkpoint: CheckpointOption = None,
    device: DeviceOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    side_by_side: Annotated[bool, typer.Option(help="Put the image beside its masks.")] = False,
    outlines: Annotated[bool, typer.Option(help="Only outlines, on the image as it is.")] = False,
    labels: Annotated[Labels | None, typer.Option(help="Write this into each mask.")] = None,
    point: Annotated[
        str | None, typer.Option(metavar="X,Y", help="Only the masks under a pixel, and list them.")
    ] = None,
) -> None:
    """Draw the masks of one image over it: segmented now, or from a run's folder."""
    from amg.view.overlay import beside, draw_overlay, masks_at  # noqa: PLC0415 - cv2 is slow

    resolved = resolve_config(
        config, set_, model={"name": model, "checkpoint": checkpoint, "device": device}
    )
    point_xy = _parse_point(point)
    rgb, masks = _from_run(from_run, image) if from_run else _segment(image, resolved)
    chosen = list(range(len(masks)))
    if point_xy is not None:
        _check_inside(point_xy, rgb)
        chosen = masks_at(masks, point_xy)
        _list_masks(masks, chosen)
    picture = draw_overlay(
        rgb,
        masks,
        chosen=chosen,
        outlines_only=outlines,
        labels=None if labels is None else labels.value,
    )
    target = out or Path(f"{Path(image).stem}.masks.png")
    _save(beside(rgb, picture) if side_by_side else picture, target)
    errors.print(f"{len(chosen)} masks: {target}", markup=False, soft_wrap=True)


def _segment(path: str, config: "Config") -> "tuple[np.ndarray, Sequence[Mask]]":
    from amg.inputs.images import decode_image  # noqa: PLC0415 - torch only when needed
    from amg.inputs.reading import read_bytes  # noqa: PLC0415
    from pipelines.corpus.generators import make_generator  # noqa: PLC0415

    try:
        rgb = decode_image(read_bytes(path), max_pixels=config.run.max_image_pixels).rgb
    except ImageError as error:
        raise ImageError(error.status, f"{path}: {error}") from error
    return rgb, make_generator(config).generate(rgb).masks


def _from_run(run: str, image_id: str) -> "tuple[np.ndarray, Sequence[Mask]]":
    from amg.runs.results import open_run  # noqa: PLC0415

    results = open_run(run)
    results.require_masks()
    row = results.row(image_id)
    if row.error is not None:
        raise ImageError(row.status, f"{image_id}: the run could not segment it: {row.error}")
    return results.image(row), row.masks


def _parse_point(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    x, _, y = text.partition(",")
    try:
        return int(x), int(y)
    except ValueError:
        raise ConfigError(f"--point {text!r}: expected X,Y in whole pixels, e.g. 320,200") from None


def _check_inside(point_xy: tuple[int, int], rgb: "np.ndarray") -> None:
    height, width = rgb.shape[:2]
    if not (0 <= point_xy[0] < width and 0 <= point_xy[1] < height):
        x, y = point_xy
        raise ConfigError(f"--point {x},{y}: outside the image of {width} x {height} pixels")


def _list_masks(masks: Sequence[Mask], chosen: list[int]) -> None:
    head = ("id", "area", "predicted IoU", "stability", "level", "box (x y w h)")
    rows = []
    for i in chosen:
        mask = masks[i]
        box = " ".join(f"{side:.0f}" for side in mask.bbox_xywh)
        scores = f"{mask.predicted_iou:.3f}", f"{mask.stability_score:.3f}"
        rows.append((str(i), str(mask.area), *scores, str(mask.level), box))
    show_table(head, rows)


def _save(picture: "np.ndarray", out: Path) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(out, format="PNG")
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error}") from error


def models() -> None:
    """List the models, and where their weights are looked for."""
    from amg.models.zoo.registry import MODELS  # noqa: PLC0415 - torch only when needed

    rows = [(spec.name, spec.description, spec.where()) for spec in MODELS.values()]
    show_table(("name", "what it is", "weights"), rows)
