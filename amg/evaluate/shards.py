"""A run's committed shards, worked through by several processes, with few of them in memory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from amg.errors import EvaluationError, RleError
from amg.ops.processes import map_in_processes, workers_for
from amg.runs.results import RunResults
from amg.runs.schema import FAILED, ImageRow
from amg.runs.shards import read_ids, read_shard
from amg.storage.patient import open_patiently

Truth = TypeVar("Truth")
Score = TypeVar("Score")
Judge = Callable[[ImageRow, Any], Score]
"""Scores one image's row against its ground truth; pickled on its way to other processes."""


@dataclass(frozen=True, slots=True)
class ShardTask(Generic[Truth, Score]):
    """A committed file of the run `out`, and what its rows are compared with, by image id."""

    out: str
    file: str
    truths: Mapping[str, Truth]
    judge: Judge[Score]


@dataclass(frozen=True, slots=True)
class ImageScore(Generic[Score]):
    """What became of one image; `score` is None where its size is not that of the truth."""

    image_id: str
    has_failed: bool
    score: Score | None


class OtherSizeError(EvaluationError):
    """Masks and ground truth are of images of different sizes."""


def image_ids_by_file(run: RunResults) -> dict[str, list[str]]:
    """The image ids in each committed file of a run."""
    storage = open_patiently(run.address)
    found = {}
    for commit in run.commits.values():
        with storage.open(commit.file) as file:
            found[commit.file] = list(read_ids(file, commit.file))
    return found


def score_run(
    out: str,
    ids_by_file: Mapping[str, Sequence[str]],
    by_id: Mapping[str, Truth],
    judge: Judge[Score],
    workers: int | None,
    score_file: Callable[[ShardTask[Truth, Score]], list[ImageScore[Score]]] | None = None,
) -> Iterator[list[ImageScore[Score]]]:
    """Score the images that have a ground truth, a list of them for each file, in order.

    workers: processes that share the files, None chooses; `score_file` is what scores a file, if
    not `score_shard`.

    Raises EvaluationError, RleError, ShardError or StorageError for what cannot be compared.
    """
    tasks = (
        ShardTask(out, file, {i: by_id[i] for i in image_ids if i in by_id}, judge)
        for file, image_ids in ids_by_file.items()
    )
    tasks = (task for task in tasks if task.truths)
    n_workers = workers_for(len(ids_by_file), workers)
    yield from map_in_processes(score_file or score_shard, tasks, n_workers)


def score_shard(task: ShardTask[Truth, Score]) -> list[ImageScore[Score]]:
    """Score the rows of one file."""
    scores: list[ImageScore[Score]] = []
    with open_patiently(task.out).open(task.file) as file:
        for row in read_shard(file, task.file):
            if row.image_id in task.truths:
                scores.append(_score(row, task.truths[row.image_id], task.judge))
    return scores


def _score(row: ImageRow, truth: object, judge: Judge[Score]) -> ImageScore[Score]:
    has_failed = row.status in FAILED
    try:
        return ImageScore(row.image_id, has_failed, judge(row, truth))
    except OtherSizeError:
        return ImageScore(row.image_id, has_failed, None)
    except (EvaluationError, RleError) as error:
        raise EvaluationError(f"{row.image_id}: {error}") from error


def check_size(row: ImageRow, size_hw: tuple[int, int]) -> None:
    """Raises OtherSizeError where an image of that size cannot be the row's."""
    if row.height is not None and (row.height, row.width) != size_hw:
        raise OtherSizeError(f"{row.height} x {row.width} is not {size_hw[0]} x {size_hw[1]}")
