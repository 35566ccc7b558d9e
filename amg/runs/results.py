"""Read what a run has committed, while it goes on or when it is done."""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from amg.errors import ConfigError, ImageError, RunError
from amg.inputs.sources import ImageSource
from amg.ops import rle
from amg.records import Mask, keep_masks, scores_enough
from amg.runs.folder import Commit, Tally, read_commits, require_masks, require_plan
from amg.runs.planned import PlannedInputs, read_planned_image
from amg.runs.schema import SCHEMA, ImageRow
from amg.runs.shards import read_rows, read_shard
from amg.storage.patient import open_patiently


class RunResults:
    """The committed rows of a run, as they were when it was opened."""

    def __init__(self, out: str | os.PathLike[str]) -> None:
        """Open a run's folder or URL.

        Raises RunError for a folder without a plan or with damaged commits.
        """
        self._storage = open_patiently(out)
        self.address = self._storage.address
        self.plan = require_plan(self._storage)
        self.commits: dict[int, Commit] = read_commits(self._storage, self.plan)
        self._of_embeddings = self.plan.embed_dtype is not None

    def require_masks(self) -> None:
        """Raise RunError for a run of embeddings: who calls this wants masks."""
        require_masks(self.plan, self._storage.url())

    @property
    def tally(self) -> Tally:
        """Counts over all committed rows."""
        return Tally.total(commit.tally for commit in self.commits.values())

    @property
    def is_complete(self) -> bool:
        """Every planned image has its row."""
        return len(self.commits) == self.plan.n_shards

    def dataset(self) -> ds.Dataset:
        """An Arrow dataset over the committed shards, for filters, DuckDB, pandas or polars."""
        filesystem, root = self._storage.arrow()
        paths = [f"{root}/{commit.file}" for commit in self.commits.values()]
        return ds.dataset(paths, schema=SCHEMA, format="parquet", filesystem=filesystem)

    def row(self, image_id: str) -> ImageRow:
        """The row of one image, in a run of embeddings with its own.

        Raises RunError if none was planned or committed.
        """
        number, _ = self._find(image_id)
        shard = number // self.plan.images_per_shard
        if shard not in self.commits:
            raise RunError(f"{self._storage.url()}: {image_id!r} is not done yet")
        name, place = self.commits[shard].file, number - self.plan.shard_rows(shard).start
        with self._storage.open(name) as file:
            (row,) = read_rows(file, name, [place], embedding=self._of_embeddings)
        return row

    def image(self, row: ImageRow) -> np.ndarray:
        """Read the image of a row again: (H, W, 3) uint8 RGB, as the model saw it.

        Raises ImageError if it is not there any more or is another one, StorageError.
        """
        _, source = self._find(row.image_id)
        try:
            return read_planned_image(source, row.sha256)
        except ImageError as error:
            raise ImageError(error.status, f"{row.uri}: {error}") from error

    def _find(self, image_id: str) -> tuple[int, ImageSource]:
        with closing(PlannedInputs(self._storage)) as inputs:
            found = inputs.find([image_id])
            if image_id in found:
                return found[image_id]
            first = inputs.read(range(min(3, self.plan.n_images)))
        ids = ", ".join(repr(source.image_id) for source in first)
        where = self._storage.url()
        raise RunError(f"{where}: no image {image_id!r} was planned; the first are {ids}")

    @property
    def files(self) -> list[str]:
        """The committed shards, in order: paths, or URLs of an object store."""
        return [self._storage.url(commit.file) for commit in self.commits.values()]

    def mask_table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """One row a mask: `image_id`, `height`, `width`, `mask_id`, and fields of the mask.

        `mask_id` is the index in its image's list; `columns`: which of the mask's fields, or all.
        In memory, some 200 bytes a mask with its counts.
        """
        return pa.Table.from_batches(self.mask_batches(columns), _mask_schema(columns))

    def mask_batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The same in parts."""
        schema = _mask_schema(columns)
        batches = self.dataset().to_batches(columns=["image_id", "height", "width", "masks"])
        return (_explode(batch, schema) for batch in batches if len(batch))

    def to_table(self, columns: list[str] | None = None) -> pa.Table:
        """Some columns of all rows, in memory."""
        return self.dataset().to_table(columns=columns)

    def rows(
        self, *, min_predicted_iou: float | None = None, min_stability_score: float | None = None
    ) -> Iterator[ImageRow]:
        """Rows in the order of the plan, with those of their masks that score at least so much.

        Rows of a run of embeddings come with these, which are read some at a time.
        A mask whose parent scores less gets the parent's, as `keep_masks` has it.
        """
        for shard in self.commits:
            for row in self.shard_rows(shard):
                kept = [
                    index
                    for index, mask in enumerate(row.masks)
                    if scores_enough(mask, min_predicted_iou, min_stability_score)
                ]
                yield replace(row, masks=keep_masks(row.masks, kept))

    def shard_rows(self, shard: int) -> Iterator[ImageRow]:
        """The rows of one committed shard: those of `plan.shard_rows(shard)`, in order."""
        name = self.commits[shard].file
        with self._storage.open(name) as file:
            yield from read_shard(file, name, embedding=self._of_embeddings)

    def planned_ids(self) -> Iterator[str]:
        """The ids of all planned images, in order. Raises StorageError."""
        with closing(PlannedInputs(self._storage)) as inputs:
            yield from inputs.ids()


_MASK_FIELDS: pa.StructType = SCHEMA.field("masks").type.value_type


def _mask_schema(columns: Sequence[str] | None) -> pa.Schema:
    names = [field.name for field in _MASK_FIELDS] if columns is None else columns
    if unknown := [name for name in names if _MASK_FIELDS.get_field_index(name) < 0]:
        there = ", ".join(field.name for field in _MASK_FIELDS)
        raise ConfigError(f"columns: masks have no {unknown[0]!r}; there are {there}")
    of_image = [SCHEMA.field(name) for name in ("image_id", "height", "width")]
    of_mask = [_MASK_FIELDS.field(name) for name in names]
    return pa.schema([*of_image, pa.field("mask_id", pa.int32()), *of_mask])


def _explode(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """One row for each mask of a batch of images."""
    masks: pa.ListArray = batch.column("masks")
    lengths = masks.value_lengths().fill_null(0).to_numpy()
    firsts = np.cumsum(lengths) - lengths
    of_image = pa.array(np.repeat(np.arange(len(batch)), lengths))
    numbers = np.arange(lengths.sum()) - np.repeat(firsts, lengths)
    fields: pa.StructArray = masks.flatten()
    columns = [batch.column(name).take(of_image) for name in ("image_id", "height", "width")]
    columns.append(pa.array(numbers, pa.int32()))
    columns += [fields.field(field.name) for field in list(schema)[len(columns) :]]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def open_run(run: str | os.PathLike[str]) -> RunResults:
    """Open a run's folder or URL for reading. Raises RunError as `RunResults`."""
    return RunResults(run)


def decode_mask(mask: Mask) -> np.ndarray:
    """The bits of a mask, (H, W) bool. Raises RleError for counts that are not valid."""
    return rle.decode(mask.rle)
