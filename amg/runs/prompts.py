"""The prompts of a run: as its folder holds them, and another run's masks as prompts."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from amg.errors import ConfigError, RunError, StorageError
from amg.prompts import columns, files
from amg.prompts.files import PromptSource
from amg.records import Prompt
from amg.runs.folder import PLAN, PROMPTS
from amg.runs.results import RunResults, open_run
from amg.storage.stores import Storage, open_storage
from amg.storage.urls import shown

PROMPTS_SCHEMA = pa.schema(
    [pa.field("row", pa.int64(), nullable=False), *(f for f in columns.SCHEMA if f.name != "image")]
)

pc: Any = pyarrow.compute  # its functions are made when it is imported
"""A row of prompts.parquet: a prompt, by the planned row of its image."""

_OF_MASKS = ("bbox", "area", "predicted_iou", "prompt_id", "category", "score")


class PlannedPrompts:
    """The prompts of planned rows, from prompts.parquet; keeps the last part that was read."""

    def __init__(self, storage: Storage) -> None:
        """Open them. Raises StorageError, RunError for what is no such file."""
        self._where = storage.url(PROMPTS)
        self._file: Any = storage.open(PROMPTS)  # pyarrow takes any object with read and seek
        try:
            self._parquet = pq.ParquetFile(self._file)
            metadata = self._parquet.metadata
            groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
            spans = [group.column(0).statistics for group in groups]
            self._spans = [(int(span.min), int(span.max)) for span in spans]
        except (OSError, pa.ArrowException, AttributeError) as error:
            raise RunError(f"{self._where}: cannot be read: {error}") from error
        self._group, self._table = -1, PROMPTS_SCHEMA.empty_table()

    def read(self, rows: range) -> dict[int, list[tuple[Prompt, bool]]]:
        """Prompts by the place in a range of planned rows, in their order; whether they are shares.

        Places without prompts are left out. Raises StorageError, RunError for a damaged file.
        """
        found: dict[int, list[tuple[Prompt, bool]]] = {}
        for group, (first, last) in enumerate(self._spans):
            if last < rows.start or first >= rows.stop:
                continue
            table = self._read_group(group)
            numbers = table.column("row").to_numpy()
            low, high = np.searchsorted(numbers, (rows.start, rows.stop))
            part = columns.to_prompts(table.slice(low, high - low))
            for row, prompt in zip(numbers[low:high].tolist(), part, strict=True):
                found.setdefault(row - rows.start, []).append(prompt)
        return found

    def _read_group(self, group: int) -> pa.Table:
        if group != self._group:
            try:
                self._table = self._parquet.read_row_group(group, use_threads=False)
            except pa.ArrowException as error:
                raise RunError(f"{self._where}: damaged: {error}") from error
            except Exception as error:  # each store's client raises what its authors chose
                raise StorageError(f"{self._where}: cannot be read: {error}") from error
            self._group = group
        return self._table

    def close(self) -> None:
        """Close the file."""
        self._parquet.close()
        self._file.close()


def open_prompts(location: str) -> PromptSource:
    """The prompts of a file or folder, as `amg.prompts.files` has them, or the masks of a run.

    Raises ConfigError naming what is wrong with it, StorageError.
    """
    if files.is_file_of_prompts(location) or open_storage(location).size(PLAN) is None:
        return files.open_prompts(location)
    try:
        run = open_run(location)
        run.require_masks()
    except RunError as error:
        raise ConfigError(f"prompts: {error}") from error
    if not run.is_complete:
        missing = f"{run.plan.n_shards - len(run.commits)} of {run.plan.n_shards} shards"
        raise ConfigError(f"prompts: {shown(location)!r}: {missing} are not done: finish it first")
    return PromptSource(lambda: read_masks(run), run.plan.categories)


def read_masks(run: RunResults) -> Iterator[pa.RecordBatch]:
    """The masks of a run as prompts: their boxes, with the ids, categories and scores they have.

    A mask without a prompt's id is called by its index in its image; without a score, it has its
    predicted IoU. A mask without pixels has no box.
    """
    for masks in run.mask_batches(_OF_MASKS):
        for start in range(0, len(masks), columns.BATCH):
            yield _as_prompts(masks.slice(start, columns.BATCH))


def _as_prompts(masks: pa.RecordBatch) -> pa.RecordBatch:
    n = len(masks)
    numbers = masks.column("mask_id").cast(pa.large_string())
    scores = pc.coalesce(masks.column("score"), masks.column("predicted_iou"))
    values = [
        masks.column("image_id"),
        _boxes(masks),
        pa.nulls(n, pa.list_(columns.POINT)),
        pa.array(np.zeros(n, bool)),
        pc.coalesce(masks.column("prompt_id").cast(pa.large_string()), numbers),
        masks.column("category").cast(pa.large_string()),
        scores,
    ]
    return pa.RecordBatch.from_arrays(values, schema=columns.SCHEMA)


def _boxes(masks: pa.RecordBatch) -> pa.Array:
    """Around the pixels, XYXY: a row's boxes end with the last pixel's index."""
    boxes = masks.column("bbox").flatten().to_numpy().reshape(-1, 4).copy()
    boxes[:, 2:] += boxes[:, :2] + 1
    is_empty = masks.column("area").to_numpy() == 0
    flat = pa.array(boxes.ravel(), pa.float32())
    mask = pa.array(is_empty)
    return pa.FixedSizeListArray.from_arrays(flat, 4, mask=mask).cast(
        columns.SCHEMA.field("box").type
    )
