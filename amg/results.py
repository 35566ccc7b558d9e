"""Read what a run has committed, while it goes on or when it is done."""

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from amg.errors import RunError
from amg.io.run_folder import INPUTS, Commit, Tally, read_commits, require_plan
from amg.io.schema import SCHEMA, ImageRow
from amg.io.shards import read_shard
from amg.io.storage import open_storage
from amg.ops import rle
from amg.records import Mask


class RunResults:
    """The committed rows of a run, as they were when it was opened."""

    def __init__(self, out: str | os.PathLike[str]) -> None:
        """Open a run's folder or URL.

        Raises RunError for a folder without a plan or with damaged commits.
        """
        self._storage = open_storage(out)
        self.plan = require_plan(self._storage)
        self.commits: dict[int, Commit] = read_commits(self._storage, self.plan)

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

    def to_table(self, columns: list[str] | None = None) -> pa.Table:
        """Some columns of all rows, in memory."""
        return self.dataset().to_table(columns=columns)

    def rows(
        self, *, min_predicted_iou: float = 0.0, min_stability_score: float = 0.0
    ) -> Iterator[ImageRow]:
        """Rows in the order of the plan, with those of their masks that score at least so much."""
        for shard in self.commits:
            for row in self.shard_rows(shard):
                masks = tuple(
                    mask
                    for mask in row.masks
                    if mask.predicted_iou >= min_predicted_iou
                    and mask.stability_score >= min_stability_score
                )
                yield replace(row, masks=masks)

    def shard_rows(self, shard: int) -> Iterator[ImageRow]:
        """The rows of one committed shard: those of `plan.shard_rows(shard)`, in order."""
        file_name = self.commits[shard].file
        with self._storage.open(file_name) as file:
            yield from read_shard(file, file_name)

    def planned_ids(self) -> Iterator[str]:
        """The ids of all planned images, in order. Raises RunError where the list is damaged."""
        with self._storage.open(INPUTS) as file:
            try:
                source: Any = file  # pyarrow takes any object with read and seek
                with pq.ParquetFile(source) as parquet:
                    for batch in parquet.iter_batches(columns=["image_id"], use_threads=False):
                        yield from batch.column(0).to_pylist()
            except (OSError, pa.ArrowException, KeyError) as error:
                where = self._storage.url(INPUTS)
                raise RunError(f"{where}: no list of the run's images: {error}") from error


def open_run(out: str | os.PathLike[str]) -> RunResults:
    """Open a run's folder or URL for reading. Raises RunError as `RunResults`."""
    return RunResults(out)


def decode_mask(mask: Mask) -> np.ndarray:
    """The bits of a mask, (H, W) bool. Raises RleError for counts that are not valid."""
    return rle.decode(mask.rle)
