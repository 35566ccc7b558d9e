"""Prompts as columns: what every reader gives, and what a run's folder keeps."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from amg.errors import ConfigError
from amg.records import Prompt

BATCH = 2**16
POINT = pa.struct([("x", pa.float32()), ("y", pa.float32()), ("label", pa.int32())])
SCHEMA = pa.schema(
    [
        pa.field("image", pa.large_string(), nullable=False),
        pa.field("box", pa.list_(pa.float32(), 4)),
        pa.field("points", pa.list_(POINT)),
        pa.field("is_share", pa.bool_(), nullable=False),
        pa.field("prompt_id", pa.large_string(), nullable=False),
        pa.field("category", pa.large_string()),
        pa.field("score", pa.float32()),
    ]
)

pc: Any = pyarrow.compute  # its functions are made when it is imported
"""A row is a prompt: what its file calls its image, its box XYXY, its points, and the asker's own.
Coordinates are pixels, or shares of the image's width and height where `is_share`."""


class PromptColumns:
    """Prompts that come one by one, on their way into a batch."""

    def __init__(self, *, is_share: bool = False) -> None:
        self._is_share = is_share
        self._clear()

    def _clear(self) -> None:
        self._columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}

    def __len__(self) -> int:
        return len(self._columns["image"])

    def add(
        self,
        image: str,
        prompt_id: str,
        box_xyxy: Sequence[float] | None,
        points: Sequence[tuple[float, float, int]] = (),
        category: str | None = None,
        score: float | None = None,
    ) -> None:
        """Add one; `points` are (x, y, label)."""
        columns = self._columns
        columns["image"].append(image)
        columns["box"].append(box_xyxy)
        columns["points"].append([dict(zip(("x", "y", "label"), p, strict=True)) for p in points])
        columns["is_share"].append(self._is_share)
        columns["prompt_id"].append(prompt_id)
        columns["category"].append(category)
        columns["score"].append(score)

    def take(self) -> pa.RecordBatch:
        """What was added since the last time."""
        columns = [pa.array(self._columns[f.name], f.type) for f in SCHEMA]
        self._clear()
        return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def box_of(values: Mapping[str, Any]) -> list[float] | None:
    """The box XYXY of a row with `box_xyxy` or `bbox` (XYWH); None without one.

    Raises ConfigError for what is not four numbers.
    """
    box = values.get("box_xyxy")
    if box is not None:
        return numbers(box, 4, "box_xyxy")
    box = values.get("bbox")
    if box is None:
        return None
    x, y, width, height = numbers(box, 4, "bbox")
    return [x, y, x + width, y + height]


def points_of(values: Mapping[str, Any]) -> list[tuple[float, float, int]]:
    """The points of a row with `points` and `labels`, which are 1 if left out, or `keypoints`.

    Keypoints are COCO's x, y, v: those with v = 0 are not there. Raises ConfigError for others.
    """
    if (points := values.get("points")) is not None:
        pairs = [numbers(point, 2, "points") for point in _list(points, "points")]
        labels = values.get("labels")
        labels = [1] * len(pairs) if labels is None else _list(labels, "labels")
        if len(labels) != len(pairs):
            raise ConfigError(f"{len(labels)} labels of {len(pairs)} points")
        whole = [int(v) for v in numbers(labels, len(labels), "labels")]
        return [(x, y, label) for (x, y), label in zip(pairs, whole, strict=True)]
    keypoints = values.get("keypoints")
    if keypoints is None:
        return []
    flat = numbers(keypoints, len(_list(keypoints, "keypoints")) // 3 * 3, "keypoints")
    triples = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
    return [(x, y, 1) for x, y, visible in triples if visible > 0]


def numbers(values: Any, n: int, name: str) -> list[float]:
    """N numbers as floats. Raises ConfigError for anything else."""
    try:
        found = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        found = []
    if len(found) != n:
        raise ConfigError(f"{name}: expected {n} numbers, got {str(values)[:60]}")
    return found


def _list(values: Any, name: str) -> list[Any]:
    if not isinstance(values, list):
        raise ConfigError(f"{name}: expected a list, got {str(values)[:60]}")
    return values


def to_prompts(table: pa.Table | pa.RecordBatch) -> list[tuple[Prompt, bool]]:
    """The prompts of a table, and whether each is in shares of its image's size."""
    return [(_to_prompt(values), values["is_share"]) for values in table.to_pylist()]


def _to_prompt(values: Mapping[str, Any]) -> Prompt:
    box, points = values["box"], values["points"] or ()
    return Prompt(
        box_xyxy=None if box is None else tuple(box),
        points_xy=tuple((point["x"], point["y"]) for point in points),
        labels=tuple(point["label"] for point in points),
        prompt_id=values["prompt_id"],
        category=values["category"],
        score=values["score"],
    )


class PromptsHash:
    """What identifies a stream of prompts, however it is cut into batches."""

    def __init__(self) -> None:
        self._digests: dict[str, Any] = {}

    def add(self, batch: pa.RecordBatch) -> None:
        """Add the next prompts."""
        for field, column in zip(batch.schema, batch.columns, strict=True):
            self._add(field.name, column)

    def sha256(self) -> str:
        """The hash of all that were added, in order."""
        parts = [f"{name} {d.hexdigest()}" for name, d in sorted(self._digests.items())]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def _add(self, name: str, column: pa.Array) -> None:
        kind = column.type
        self._update(f"{name}?", column.is_valid().to_numpy(zero_copy_only=False))
        if pa.types.is_struct(kind):
            for field, part in zip(kind, column.flatten(), strict=True):
                self._add(f"{name}.{field.name}", part)
        elif pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
            self._update(f"{name}#", _filled(pc.list_value_length(column), 0))
            self._add(f"{name}[]", column.flatten())
        elif pa.types.is_large_string(kind):
            self._update(f"{name}#", _filled(pc.binary_length(column), 0))
            self._update(name, "".join(column.fill_null("").to_pylist()).encode())
        else:
            self._update(name, _filled(column, False if pa.types.is_boolean(kind) else 0))

    def _update(self, name: str, data: np.ndarray | bytes) -> None:
        digest = self._digests.setdefault(name, hashlib.sha256())
        digest.update(data.tobytes() if isinstance(data, np.ndarray) else data)


def _filled(column: pa.Array, value: Any) -> np.ndarray:
    return column.fill_null(value).to_numpy(zero_copy_only=False)
