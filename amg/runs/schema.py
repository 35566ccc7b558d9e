"""The row: one image with all its masks, and its Arrow schema."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pyarrow as pa

from amg.records import Mask, Rle

SCHEMA_VERSION = "2"

Status = Literal[
    "ok", "empty", "decode_error", "missing", "unreachable", "too_large", "oom", "crashed"
]
FAILED: frozenset[str] = frozenset(get_args(Status)) - {"ok", "empty"}

_BOX_XYWH = pa.list_(pa.float32(), 4)
_POINT = pa.struct([("x", pa.float32()), ("y", pa.float32())])
_MASK = pa.struct(
    [
        ("counts", pa.large_string()),
        ("area", pa.int32()),
        ("bbox", _BOX_XYWH),
        ("predicted_iou", pa.float32()),
        ("stability_score", pa.float32()),
        ("point", _POINT),
        ("crop_box", pa.list_(pa.int32(), 4)),
        ("crop_layer", pa.int8()),
        ("level", pa.int8()),
        ("parent", pa.int32()),
    ]
)
_SECONDS = pa.struct([("decode", pa.float32()), ("encode", pa.float32()), ("masks", pa.float32())])

SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.large_string(), nullable=False),
        pa.field("uri", pa.large_string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("height", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("source_mode", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("masks", pa.list_(_MASK), nullable=False),
        pa.field("seconds", _SECONDS, nullable=False),
        pa.field("candidates", pa.list_(_MASK)),
    ],
    metadata={"amg.schema_version": SCHEMA_VERSION},
)
"""One row an image. `counts` is compressed COCO RLE of a mask of (height, width), column-major;
boxes are XYWH in pixels; `parent` is the index of the smallest mask that contains this one, null if
there is none or none was looked for. `candidates` are the masks that NMS chose from, in the order
of the prompts: null where they were not kept."""

_ADDED_IN_2 = "candidates"
READABLE = (SCHEMA, SCHEMA.remove(SCHEMA.get_field_index(_ADDED_IN_2)))
"""The schemas of files that are read: this version's, and those before."""

_PLAIN_COLUMNS = [name for name in SCHEMA.names if name not in ("masks", "seconds", "candidates")]


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One planned image and what became of it.

    `height` and `width` are after EXIF orientation; they, `source_mode` and `sha256` are None
    where the image could not be read that far. `error` says why a status is not ok. `candidates`
    is None where they were not kept, or not read.
    """

    image_id: str
    uri: str
    status: Status
    error: str | None = None
    height: int | None = None
    width: int | None = None
    source_mode: str | None = None
    sha256: str | None = None
    masks: tuple[Mask, ...] = ()
    decode_s: float = 0.0
    encode_s: float = 0.0
    masks_s: float = 0.0
    candidates: tuple[Mask, ...] | None = None


def to_table(rows: Sequence[ImageRow]) -> pa.Table:
    """Build an Arrow table of `SCHEMA`."""
    return pa.Table.from_pylist([_row_values(row) for row in rows], schema=SCHEMA)


def _row_values(row: ImageRow) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in _PLAIN_COLUMNS}
    seconds = {"decode": row.decode_s, "encode": row.encode_s, "masks": row.masks_s}
    masks = [_mask_values(mask) for mask in row.masks]
    kept = None if row.candidates is None else [_mask_values(mask) for mask in row.candidates]
    return {**values, "masks": masks, "seconds": seconds, "candidates": kept}


def _mask_values(mask: Mask) -> dict[str, Any]:
    x, y = mask.point_xy
    return {
        "counts": mask.rle.counts,
        "area": mask.area,
        "bbox": mask.bbox_xywh,
        "predicted_iou": mask.predicted_iou,
        "stability_score": mask.stability_score,
        "point": {"x": x, "y": y},
        "crop_box": mask.crop_box_xywh,
        "crop_layer": mask.crop_layer,
        "level": mask.level,
        "parent": mask.parent,
    }


def from_table(table: pa.Table) -> Iterator[ImageRow]:
    """Read rows back from an Arrow table of `SCHEMA`; numbers have the precision of the columns.

    Without the column of candidates, as tables of version 1 are, rows have None.
    """
    for values in table.to_pylist():
        size_hw = (values["height"], values["width"])
        seconds = values["seconds"]
        candidates = values.get("candidates")
        yield ImageRow(
            **{name: values[name] for name in _PLAIN_COLUMNS},
            masks=_read_masks(values["masks"], size_hw),
            decode_s=seconds["decode"],
            encode_s=seconds["encode"],
            masks_s=seconds["masks"],
            candidates=None if candidates is None else _read_masks(candidates, size_hw),
        )


def _read_masks(masks: Sequence[dict[str, Any]], size_hw: tuple[int, int]) -> tuple[Mask, ...]:
    return tuple(_read_mask(values, size_hw) for values in masks)


def _read_mask(values: dict[str, Any], size_hw: tuple[int, int]) -> Mask:
    return Mask(
        rle=Rle(size_hw, values["counts"]),
        area=values["area"],
        bbox_xywh=tuple(values["bbox"]),
        predicted_iou=values["predicted_iou"],
        stability_score=values["stability_score"],
        point_xy=(values["point"]["x"], values["point"]["y"]),
        crop_box_xywh=tuple(values["crop_box"]),
        crop_layer=values["crop_layer"],
        level=values["level"],
        parent=values["parent"],
    )
