"""The images of the gallery: their pictures, thumbnails, and masks as files of the report.

Files are numbered by the image's row in the plan, never named after what a run was given. A page
opened from a disk may not fetch() files beside it (browsers give each such file an origin of its
own), but it may load scripts: so data are scripts of one call, `amgReport.image({...})`, loaded one
by one as images are opened. What they hold is JSON in ASCII, and no HTML is ever made of it.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from amg.inputs.sources import ImageSource
from amg.ops.colours import Colour, index_colour
from amg.ops.coverage import covered_pixels
from amg.records import Mask
from amg.runs.folder import Commit, Plan
from amg.runs.planned import PlannedInputs
from amg.runs.schema import FAILED, ImageRow
from amg.runs.shards import read_rows
from amg.runs.watching import OnItems
from amg.storage.stores import Storage
from amg.view.overlay import category_colours
from amg.view.report.pictures import NoPictureError, as_jpeg, fit, load_picture, with_masks
from amg.view.report.sampling import Choice

PICTURE_PX = 1600
THUMB_PX = 400
_PICTURE_QUALITY = 85
_THUMB_QUALITY = 80
_AT_ONCE = 2  # decoded images in memory; reading and JPEG release Python's lock


@dataclass(frozen=True, slots=True)
class Item:
    """An image of the gallery. `note` says why it has no picture; else None."""

    row: int
    id: str
    uri: str
    status: str
    error: str | None
    width: int | None
    height: int | None
    masks: int
    coverage: float | None
    seconds: float
    note: str | None


def write_gallery(
    folder: Path,
    storage: Storage,
    plan: Plan,
    commits: Mapping[int, Commit],
    choice: Choice,
    watch: OnItems,
) -> list[Item]:
    """Write the files of all chosen images and their index; what the index says, in order.

    Raises ShardError for a damaged shard, StorageError if it cannot be read, OSError where the
    folder cannot be written.
    """
    for name in ("images", "thumbs", "data"):
        (folder / name).mkdir()
    max_pixels = plan.identity["run"]["max_image_pixels"]

    def write(found: tuple[int, ImageRow, ImageSource]) -> Item:
        return write_item(folder, *found, max_pixels, plan.categories)

    items: list[Item] = []
    rows = _chosen_rows(storage, plan, commits, choice.rows)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while batch := list(islice(rows, _AT_ONCE)):
            items += pool.map(write, batch)
            watch(len(items), len(choice.rows), "pictures")
    index = {
        "isAll": choice.is_all,
        "extremes": {kind: len(rows) for kind, rows in choice.extremes.items()},
        "sample": choice.sample,
        "items": [asdict(item) for item in items],
    }
    (folder / "data/gallery.js").write_text(_call("gallery", index), encoding="ascii")
    return items


def _chosen_rows(
    storage: Storage, plan: Plan, commits: Mapping[int, Commit], rows: Sequence[int]
) -> Iterator[tuple[int, ImageRow, ImageSource]]:
    """The chosen rows, with where their images are."""
    wanted: dict[int, list[int]] = {}
    for row in rows:
        wanted.setdefault(row // plan.images_per_shard, []).append(row)
    if not wanted:
        return
    inputs = PlannedInputs(storage)
    try:
        for shard, its_rows in wanted.items():
            name = commits[shard].file
            places = [row - plan.shard_rows(shard).start for row in its_rows]
            with storage.open(name) as file:
                for row, found in zip(its_rows, read_rows(file, name, places), strict=True):
                    (source,) = inputs.read(range(row, row + 1))
                    yield row, found, source
    finally:
        inputs.close()


def write_item(
    folder: Path,
    number: int,
    row: ImageRow,
    source: ImageSource,
    max_pixels: int,
    categories: Mapping[str, int],
) -> Item:
    """Write one image's files. Masks have the colours of their categories, where there are any."""
    colours = [index_colour(i) for i in range(len(row.masks))]
    if categories:
        colours = category_colours(row.masks, categories)
    name = f"{number:06d}"
    note = None
    try:
        rgb = load_picture(row, source, max_pixels)
        picture, thumb = fit(rgb, PICTURE_PX), fit(rgb, THUMB_PX)
        (folder / f"images/{name}.jpg").write_bytes(as_jpeg(picture, _PICTURE_QUALITY))
        marked = with_masks(thumb, row.masks, colours) if row.masks else thumb
        (folder / f"thumbs/{name}.jpg").write_bytes(as_jpeg(marked, _THUMB_QUALITY))
    except NoPictureError as error:
        note = str(error)
    data = {"row": number, "masks": _masks_for_the_page(row.masks, colours)}
    (folder / f"data/{name}.js").write_text(_call("image", data), encoding="ascii")
    return _item(number, row, note)


def _item(number: int, row: ImageRow, note: str | None) -> Item:
    n_pixels = (row.height or 0) * (row.width or 0)
    coverage = None
    if n_pixels and row.status not in FAILED:
        coverage = covered_pixels([mask.rle for mask in row.masks]) / n_pixels
    return Item(
        row=number,
        id=row.image_id,
        uri=row.uri,
        status=row.status,
        error=row.error,
        width=row.width,
        height=row.height,
        masks=len(row.masks),
        coverage=coverage,
        seconds=row.decode_s + row.encode_s + row.masks_s,
        note=note,
    )


def _masks_for_the_page(masks: Sequence[Mask], colours: Sequence[Colour]) -> list[dict[str, Any]]:
    """Masks, largest first, so that parts are drawn over their objects."""
    largest_first = sorted(enumerate(masks), key=lambda item: item[1].area, reverse=True)
    return [
        {
            "index": index,
            "colour": colours[index],
            "area": mask.area,
            "iou": _rounded(mask.predicted_iou),
            "stability": _rounded(mask.stability_score),
            "box": mask.bbox_xywh,
            "points": mask.points_xy,
            **_asked(mask),
            "layer": mask.crop_layer,
            "level": mask.level,
            "counts": mask.rle.counts,
        }
        for index, mask in largest_first
    ]


def _asked(mask: Mask) -> dict[str, Any]:
    """What somebody asked for this mask, if it was no grid."""
    if mask.prompt is None:
        return {}
    return {
        "prompt": mask.prompt_id,
        "asked": mask.prompt.box_xyxy,
        "category": mask.category,
        "score": None if mask.score is None else _rounded(mask.score),
    }


def _rounded(score: float) -> float | None:
    """A score with as many digits as mean something; None for NaN, which JSON does not know."""
    return None if math.isnan(score) else round(score, 4)


def _call(name: str, values: dict[str, Any]) -> str:
    """A script that hands values to the page."""
    text = json.dumps(values, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return f"amgReport.{name}({text});\n"
