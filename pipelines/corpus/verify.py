"""Is a run's folder what it claims to be? Every committed byte is looked at again."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from amg.errors import AmgError, RleError
from amg.ops import rle
from amg.ops.processes import map_in_processes, workers_for
from amg.records import Mask
from amg.runs.folder import SUCCESS, Commit, Plan, Tally, read_commits, require_plan
from amg.runs.planned import PlannedInputs
from amg.runs.schema import ImageRow
from amg.runs.shards import read_shard
from amg.runs.watching import OnItems
from amg.storage.patient import open_patiently

_SHOWN_PER_SHARD = 5


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong with a shard: nothing, if `problems` is empty. `shard` None: with the run.

    unfinished: what a run has still to do, which is no damage.
    """

    shard: int | None
    n_rows: int
    problems: tuple[str, ...]
    unfinished: str | None = None


def verify(
    run: str,
    workers: int | None = 1,
    watch: OnItems = lambda done, of, what: None,
) -> Iterator[Verdict]:
    """Compare each commit with its file, and each file with the plan; then the whole.

    Checked: a commit for every shard, the file's sha256, its rows' ids against the plan in order,
    its counts, and each mask's RLE: valid, of the image's size and with the stored area; and that
    parents are masks of the image, and larger.

    workers: processes that share the shards; None: one for each core, where there are many. `watch`
    hears of shards done, of how many, and that they are shards.

    Raises RunError for a folder without a plan, or with commits of another.
    """
    storage = open_patiently(run)
    plan = require_plan(storage)
    commits = read_commits(storage, plan)
    n_workers = workers_for(len(commits), workers)
    verdicts = map_in_processes(partial(_check, run, plan), iter(commits.values()), n_workers)
    for done, verdict in enumerate(verdicts, 1):
        watch(done, len(commits), "shards")
        yield verdict
    yield _check_whole(len(commits), plan, says_done=storage.size(SUCCESS) is not None)


def _check_whole(n_commits: int, plan: Plan, *, says_done: bool) -> Verdict:
    missing = plan.n_shards - n_commits
    if not missing:
        left = None if says_done else f"{SUCCESS} is missing: run again to finish"
        return Verdict(None, 0, (), left)
    left = f"{missing} of {plan.n_shards} shards are not committed"
    problems = (f"{left}, and {SUCCESS} says that all are",) if says_done else ()
    return Verdict(None, 0, problems, left)


def _check(run: str, plan: Plan, commit: Commit) -> Verdict:
    storage = open_patiently(run)
    problems: list[str] = []
    rows: list[str] = []
    try:
        with storage.open(commit.file) as file:
            if _sha256(file) != commit.sha256:
                problems.append(f"{commit.file}: its sha256 is not that of the commit")
            file.seek(0)
            tally = Tally()
            for row in read_shard(file, commit.file, candidates=True):
                rows.append(row.image_id)
                tally += Tally.of(row)
                problems += _check_row(row)
        problems += _check_counts(plan, commit, rows, tally, run)
    except AmgError as error:
        problems.append(str(error))
    except OSError as error:  # in the middle of reading
        problems.append(f"{commit.file}: cannot be read: {error}")
    if (n_more := len(problems) - _SHOWN_PER_SHARD) > 0:
        problems[_SHOWN_PER_SHARD:] = [f"and {n_more} more"]
    return Verdict(commit.shard, len(rows), tuple(problems))


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()  # not file_digest: object stores' files have no buffer to lend
    while chunk := file.read(2**22):
        digest.update(chunk)
    return digest.hexdigest()


def _check_counts(
    plan: Plan, commit: Commit, rows: list[str], tally: Tally, run: str
) -> Iterator[str]:
    inputs = PlannedInputs(open_patiently(run))
    planned = [source.image_id for source in inputs.read(plan.shard_rows(commit.shard))]
    inputs.close()
    if rows != planned:
        yield f"{commit.file}: its image ids are not those of the plan"
    if (tally.masks, tally.statuses) != (commit.tally.masks, commit.tally.statuses):
        yield f"{commit.file}: its masks and statuses are not those of the commit"


def _check_row(row: ImageRow) -> Iterator[str]:
    for name, masks in (("masks", row.masks), ("candidates", row.candidates or ())):
        for index, mask in enumerate(masks):
            if problem := _problem_of(mask, masks):
                yield f"{row.image_id}: {name}[{index}]: {problem}"


def _problem_of(mask: Mask, masks: Sequence[Mask]) -> str | None:
    """What is wrong with one mask of an image's."""
    try:
        found = rle.validate(mask.rle.counts, mask.rle.size_hw)
    except RleError as error:
        return str(error)
    if rle.area(found) != mask.area:
        return f"area {mask.area}, its RLE has another"
    parent = mask.parent
    if parent is None or (0 <= parent < len(masks) and masks[parent].area > mask.area):
        return None
    return f"its parent {parent} is no larger mask of the image"
