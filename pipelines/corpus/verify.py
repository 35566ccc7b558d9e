"""Is a run's folder what it claims to be? Every committed byte is looked at again."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from amg.errors import AmgError, RleError
from amg.ops import rle
from amg.ops.processes import map_in_processes, workers_for
from amg.records import Mask
from amg.runs.folder import REFILTERED, SUCCESS, Commit, Plan, Tally, read_commits, require_plan
from amg.runs.planned import PlannedInputs
from amg.runs.prompts import PlannedPrompts
from amg.runs.schema import FAILED, ImageRow
from amg.runs.shards import read_shard
from amg.runs.watching import OnItems
from amg.storage.patient import open_patiently
from amg.storage.stores import Storage

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
    its counts, and each mask's RLE: valid, of the image's size and with the stored area; that
    parents are masks of the image, and larger; that each prompt has a mask or an error; and that
    embeddings are where they should be, of the right size.

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
            tally, asked = Tally(), _prompt_ids(storage, plan, commit.shard)
            rows_there = read_shard(file, commit.file, candidates=True, embedding=True)
            for number, row in enumerate(rows_there):
                rows.append(row.image_id)
                tally += Tally.of(row)
                problems += _check_row(row)
                problems += _check_embedding(row, plan)
                problems += _check_answers(row, asked.get(number, []))
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


def _check_embedding(row: ImageRow, plan: Plan) -> Iterator[str]:
    is_wanted = plan.embed_dtype is not None and row.status not in FAILED
    if is_wanted != (row.embedding is not None):
        yield f"{row.image_id}: {'no embedding' if is_wanted else 'an embedding'}"
    elif row.embedding is not None:
        dtypes = {str(array.dtype) for array in row.embedding.arrays.values()}
        found = f"{row.embedding.nbytes} bytes in {', '.join(sorted(dtypes))}"
        planned = f"{plan.embedding_bytes} bytes in {plan.embed_dtype}"
        if found != planned:
            yield f"{row.image_id}: its embedding has {found}, not {planned}"


def _prompt_ids(storage: Storage, plan: Plan, shard: int) -> dict[int, list[str | None]]:
    """What was asked, by the place in the shard; nothing of runs whose masks were filtered."""
    if not plan.has_prompts or REFILTERED in plan.identity:
        return {}
    with closing(PlannedPrompts(storage)) as prompts:
        found = prompts.read(plan.shard_rows(shard))
    return {place: [prompt.prompt_id for prompt, _ in some] for place, some in found.items()}


def _check_answers(row: ImageRow, asked: Sequence[str | None]) -> Iterator[str]:
    answered = {mask.prompt_id for mask in row.masks}
    answered |= {error.prompt_id for error in row.prompt_errors or ()}
    if row.status not in FAILED and (lost := [name for name in asked if name not in answered]):
        yield f"{row.image_id}: prompt {lost[0]!r} has neither mask nor error"


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
