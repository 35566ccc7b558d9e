"""The row: one image with all its masks, and its Arrow schema."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa

from amg.errors import ShardError
from amg.records import Embedding, Mask, Prompt, Rle, check_dtype

SCHEMA_VERSION = "3"

Status = Literal[
    "ok", "empty", "decode_error", "missing", "unreachable", "too_large", "oom", "crashed"
]
FAILED: frozenset[str] = frozenset(get_args(Status)) - {"ok", "empty"}

_BOX_XYWH = pa.list_(pa.float32(), 4)
_POINT = pa.struct([("x", pa.float32()), ("y", pa.float32())])
_PROMPT = pa.struct(
    [
        ("box", pa.list_(pa.float32(), 4)),
        ("points", pa.list_(pa.struct([*_POINT, ("label", pa.int8())]))),
    ]
)
_MASK_TO_2 = pa.struct(
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
_MASK = pa.struct(
    [
        *_MASK_TO_2,
        ("prompt_id", pa.string()),
        ("prompt", _PROMPT),
        ("category", pa.string()),
        ("score", pa.float32()),
        ("object_score", pa.float32()),
    ]
)
_PROMPT_ERROR = pa.struct([("prompt_id", pa.string()), ("error", pa.string())])
_ARRAY = pa.struct(
    [
        ("name", pa.string()),
        ("dtype", pa.string()),
        ("shape", pa.list_(pa.int32())),
        ("data", pa.large_binary()),
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
        pa.field("prompt_errors", pa.list_(_PROMPT_ERROR)),
        pa.field("embedding", pa.list_(_ARRAY)),
    ],
    metadata={"amg.schema_version": SCHEMA_VERSION},
)
"""One row an image. `counts` is compressed COCO RLE of a mask of (height, width), column-major;
boxes are XYWH in pixels; `parent` is the index of the smallest mask that contains this one, null if
there is none or none was looked for. `candidates` are the masks that NMS chose from, in the order
of the prompts: null where they were not kept. Of runs from prompts, masks have what was asked, its
box XYXY in pixels, and the asker's own `prompt_id`, `category` and `score`; `prompt_errors` are the
prompts that could not be asked. All these are null in other runs. Rows of a run of embeddings have
no masks, but the arrays (C, h, w) of `embedding`, little-endian and row-major: null elsewhere."""
MODEL, WEIGHTS = "amg.model", "amg.weights_sha256"
"""In a file's metadata: whose masks or embeddings it holds."""


def _readable() -> tuple[pa.Schema, ...]:
    """The schemas of files that are read: this version's, and those before."""
    of_2 = pa.schema([f for f in SCHEMA if f.name not in ("prompt_errors", "embedding")])
    for name in ("masks", "candidates"):
        place = of_2.get_field_index(name)
        of_2 = of_2.set(place, of_2.field(place).with_type(pa.list_(_MASK_TO_2)))
    return SCHEMA, of_2, of_2.remove(of_2.get_field_index("candidates"))


READABLE = _readable()
_NESTED = ("masks", "seconds", "candidates", "prompt_errors", "embedding")
_PLAIN_COLUMNS = [name for name in SCHEMA.names if name not in _NESTED]


@dataclass(frozen=True, slots=True)
class PromptError:
    """A prompt that could not be asked, and why."""

    prompt_id: str | None
    error: str


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One planned image and what became of it.

    `height` and `width` are after EXIF orientation; they, `source_mode` and `sha256` are None
    where the image could not be read that far. `error` says why a status is not ok. `candidates`
    is None where they were not kept, or not read; `prompt_errors` in runs without prompts;
    `embedding` in runs of masks, or where it was not read.
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
    prompt_errors: tuple[PromptError, ...] | None = None
    embedding: Embedding | None = None


def to_table(rows: Sequence[ImageRow]) -> pa.Table:
    """Build an Arrow table of `SCHEMA`."""
    return pa.Table.from_pylist([_row_values(row) for row in rows], schema=SCHEMA)


def _row_values(row: ImageRow) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in _PLAIN_COLUMNS}
    seconds = {"decode": row.decode_s, "encode": row.encode_s, "masks": row.masks_s}
    masks = [_mask_values(mask) for mask in row.masks]
    kept = None if row.candidates is None else [_mask_values(mask) for mask in row.candidates]
    errors = None if row.prompt_errors is None else [asdict(error) for error in row.prompt_errors]
    nested = {"masks": masks, "seconds": seconds, "candidates": kept, "prompt_errors": errors}
    return {**values, **nested, "embedding": row.embedding and _array_values(row.embedding)}


def _array_values(embedding: Embedding) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "dtype": str(array.dtype),
            "shape": list(array.shape),
            "data": array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes(),
        }
        for name, array in embedding.arrays.items()
    ]


def _mask_values(mask: Mask) -> dict[str, Any]:
    return {
        "counts": mask.rle.counts,
        "area": mask.area,
        "bbox": mask.bbox_xywh,
        "predicted_iou": mask.predicted_iou,
        "stability_score": mask.stability_score,
        "point": None if mask.point_xy is None else dict(zip("xy", mask.point_xy, strict=True)),
        "crop_box": mask.crop_box_xywh,
        "crop_layer": mask.crop_layer,
        "level": mask.level,
        "parent": mask.parent,
        "prompt_id": mask.prompt_id,
        "prompt": None if mask.prompt is None else _prompt_values(mask.prompt),
        "category": mask.category,
        "score": mask.score,
        "object_score": mask.object_score,
    }


def _prompt_values(prompt: Prompt) -> dict[str, Any]:
    points = zip(prompt.points_xy, prompt.labels, strict=True)
    return {
        "box": prompt.box_xyxy,
        "points": [{"x": x, "y": y, "label": label} for (x, y), label in points],
    }


def from_table(table: pa.Table) -> Iterator[ImageRow]:
    """Read rows back from an Arrow table of `SCHEMA`; numbers have the precision of the columns.

    What tables of older versions have no column for is None, and what was not read. Raises
    ShardError for an embedding that is damaged.
    """
    metadata = table.schema.metadata or {}
    made_by = (metadata.get(key.encode(), b"") for key in (MODEL, WEIGHTS))
    model, weights = (value.decode(errors="replace") or None for value in made_by)
    kept = table.column("embedding") if "embedding" in table.column_names else None
    plain = table if kept is None else table.drop_columns("embedding")
    for number, values in enumerate(plain.to_pylist()):
        size_hw = (values["height"], values["width"])
        arrays = None if kept is None else _read_arrays(kept[number], values["image_id"])
        seconds = values["seconds"]
        candidates, errors = values.get("candidates"), values.get("prompt_errors")
        yield ImageRow(
            **{name: values[name] for name in _PLAIN_COLUMNS},
            masks=_read_masks(values["masks"], size_hw),
            decode_s=seconds["decode"],
            encode_s=seconds["encode"],
            masks_s=seconds["masks"],
            candidates=None if candidates is None else _read_masks(candidates, size_hw),
            prompt_errors=None if errors is None else tuple(PromptError(**e) for e in errors),
            embedding=None if arrays is None else Embedding(size_hw, arrays, model, weights),
        )


def _read_arrays(kept: pa.ListScalar, image_id: str) -> dict[str, np.ndarray] | None:
    """The arrays as they lie in the table: read-only, and without a copy."""
    if not kept.is_valid:
        return None
    arrays = {}
    for array in kept:
        name, dtype, shape = (array[key].as_py() for key in ("name", "dtype", "shape"))
        try:
            check_dtype(dtype)
            flat = np.frombuffer(array["data"].as_buffer(), np.dtype(dtype).newbyteorder("<"))
            arrays[name] = flat.reshape(tuple(shape))
        except (TypeError, ValueError) as error:
            text = f"{image_id}: embedding: {name}: no {dtype} of {shape}: {error}"
            raise ShardError(text) from error
    return arrays


def _read_masks(masks: Sequence[dict[str, Any]], size_hw: tuple[int, int]) -> tuple[Mask, ...]:
    return tuple(_read_mask(values, size_hw) for values in masks)


def _read_mask(values: dict[str, Any], size_hw: tuple[int, int]) -> Mask:
    point = values["point"]
    return Mask(
        rle=Rle(size_hw, values["counts"]),
        area=values["area"],
        bbox_xywh=tuple(values["bbox"]),
        predicted_iou=values["predicted_iou"],
        stability_score=values["stability_score"],
        point_xy=None if point is None else (point["x"], point["y"]),
        crop_box_xywh=tuple(values["crop_box"]),
        crop_layer=values["crop_layer"],
        level=values["level"],
        parent=values["parent"],
        prompt=_read_prompt(values),
        object_score=values.get("object_score"),
    )


def _read_prompt(values: dict[str, Any]) -> Prompt | None:
    asked = values.get("prompt")
    if asked is None:
        return None
    box, points = asked["box"], asked["points"] or ()
    return Prompt(
        box_xyxy=None if box is None else tuple(box),
        points_xy=tuple((point["x"], point["y"]) for point in points),
        labels=tuple(point["label"] for point in points),
        prompt_id=values["prompt_id"],
        category=values["category"],
        score=values["score"],
    )
