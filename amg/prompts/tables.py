"""Prompts from tables: Parquet, Arrow files and streams, and CSV, column by column."""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq

from amg.errors import AmgError, ConfigError
from amg.inputs.files import open_file
from amg.inputs.tables import open_table
from amg.prompts.columns import BATCH, POINT, SCHEMA, box_of, points_of
from amg.storage.opened import OpenFile

pc: Any = pyarrow.compute  # its functions are made when it is imported

IMAGE_NAMES = ("image_id", "file_name")
_NESTED = ("box_xyxy", "bbox", "points", "labels", "keypoints")
_KNOWN = (*IMAGE_NAMES, *_NESTED, "prompt_id", "id", "category", "score")


def read_table(location: str) -> Iterator[pa.RecordBatch]:
    """The rows of a table as prompts. Raises ConfigError naming a row that is none."""
    start = 0
    with closing(open_file(location)) as file:
        for batch in _guarded(_batches(file, is_csv=location.lower().endswith(".csv"))):
            if not start:
                _check_columns(batch.schema.names)
            yield _to_prompts(batch, start)
            start += batch.num_rows


def _batches(file: OpenFile, *, is_csv: bool) -> Iterator[pa.RecordBatch]:
    if is_csv:
        # Ids such as 007 are text; what are numbers is known by the column.
        texts = {name: pa.large_string() for name in _KNOWN if name != "score"}
        options = arrow_csv.ConvertOptions(
            column_types={**texts, "score": pa.float64()},
            null_values=[""],
            strings_can_be_null=True,
        )
        yield from arrow_csv.open_csv(file, convert_options=options)
        return
    table = open_table(file)
    names = [name for name in table.schema_arrow.names if name in _KNOWN]
    _check_columns(names)
    if isinstance(table, pq.ParquetFile):
        yield from table.iter_batches(BATCH, columns=names, use_threads=False)
        return
    for batch in table.batches(names):
        batch.validate(full=True)  # an Arrow file's bytes become arrays unchecked
        yield batch


def _guarded(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    try:
        yield from batches
    except AmgError:
        raise
    except Exception as error:  # pyarrow says ValueError, OSError, KeyError, ... of damaged files
        raise ConfigError(f"damaged table: {' '.join(str(error).split())[:200]}") from error


def _check_columns(names: Sequence[str]) -> None:
    if not any(name in names for name in IMAGE_NAMES):
        raise ConfigError(f"no column {' or '.join(IMAGE_NAMES)}")
    if not any(name in names for name in _NESTED):
        raise ConfigError("no column box_xyxy, bbox, points or keypoints: nothing is asked")


def _to_prompts(batch: pa.RecordBatch, start: int) -> pa.RecordBatch:
    n = batch.num_rows
    numbers = pa.array(map(str, range(start, start + n)), pa.large_string())
    images = _first(batch, IMAGE_NAMES, pa.large_string())
    if images is None or images.null_count:
        raise ConfigError(f"a row from {start} to {start + n - 1} names no image")
    ids = _first(batch, ("prompt_id", "id"), pa.large_string())
    boxes, points = _boxes_and_points(batch, start)
    columns = [
        images,
        boxes,
        points,
        pa.array([False]).take(pa.array([0] * n, pa.int32())),
        numbers if ids is None else pc.coalesce(ids, numbers),
        _first(batch, ("category",), pa.large_string()),
        _first(batch, ("score",), pa.float32()),
    ]
    filled = [
        pa.nulls(n, field.type) if column is None else column
        for field, column in zip(SCHEMA, columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(filled, schema=SCHEMA)


def _first(batch: pa.RecordBatch, names: Sequence[str], kind: pa.DataType) -> Any:
    """The first column of these names that there is, as this type; None if there is none."""
    name = next((name for name in names if name in batch.schema.names), None)
    if name is None:
        return None
    column = batch.column(name)
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    is_number = pa.types.is_floating(column.type) or pa.types.is_boolean(column.type)
    if kind == pa.large_string() and is_number:
        raise ConfigError(f"column {name!r} is {column.type}, not text or whole numbers")
    try:
        return column.cast(kind, safe=kind == pa.large_string())
    except pa.ArrowException as error:
        raise ConfigError(f"column {name!r} is {column.type}: {error}") from error


def _boxes_and_points(batch: pa.RecordBatch, start: int) -> tuple[pa.Array, pa.Array]:
    """Boxes as a whole column where they are one of lists; else row by row."""
    there = [name for name in _NESTED if name in batch.schema.names]
    if len(there) == 1 and there[0] in ("box_xyxy", "bbox"):
        boxes = _as_boxes(batch.column(there[0]), is_xyxy=there[0] == "box_xyxy")
        if boxes is not None:
            return boxes, pa.nulls(batch.num_rows, pa.list_(POINT))
    boxes, points = [], []
    for i, values in enumerate(batch.select(there).to_pylist()):
        try:
            row = {name: _parsed(value, name) for name, value in values.items()}
            boxes.append(box_of(row))
            points.append(points_of(row))
        except ConfigError as error:
            raise ConfigError(f"row {start + i}: {error}") from error
    records = [[dict(zip(("x", "y", "label"), p, strict=True)) for p in some] for some in points]
    return pa.array(boxes, SCHEMA.field("box").type), pa.array(records, pa.list_(POINT))


def _as_boxes(column: pa.Array, *, is_xyxy: bool) -> pa.Array | None:
    """A column of lists of four numbers as boxes XYXY; None for what needs a closer look."""
    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and not (
        pa.types.is_fixed_size_list(kind) and kind.list_size == 4
    ):
        return None
    lengths = pc.list_value_length(column).drop_null()
    values = column.flatten()
    if column.null_count or values.null_count or not pc.all(pc.equal(lengths, 4)).as_py():
        return None
    if not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        return None
    boxes = values.cast(pa.float64(), safe=False).to_numpy().reshape(-1, 4)
    if not is_xyxy:
        boxes = boxes.copy()
        boxes[:, 2:] += boxes[:, :2]
    flat = pa.array(boxes.astype("float32").ravel())
    return pa.FixedSizeListArray.from_arrays(flat, 4).cast(SCHEMA.field("box").type)


def _parsed(value: Any, name: str) -> Any:
    """A cell of lists; text, as CSV has it, is JSON."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return json.loads(value)
    except ValueError as error:
        raise ConfigError(f"{name}: {value[:60]!r} is no list: {error}") from error
