"""`amg status`, `amg verify` and `amg gc`: what looks after a run's folder."""

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from amg.cli.answers import describe_prompts, say, show_facts, show_json, show_table
from amg.cli.options import (
    EXIT_INCOMPLETE,
    EXIT_SOME_FAILED,
    EXIT_STORAGE,
    JsonOption,
    ProcessesOption,
    RunArgument,
    errors,
)
from amg.cli.progress import CountDisplay, duration

if TYPE_CHECKING:
    from pipelines.corpus.holders import Holder
    from pipelines.corpus.status import RunStatus


def status(run: RunArgument, as_json: JsonOption = False) -> None:
    """Say how far a run is, and who is at work on it. Exit codes 0, 3 and 4 as `amg run`."""
    from pipelines.corpus.status import look_at  # noqa: PLC0415

    found = look_at(run)
    if as_json:
        show_json(asdict(found))
    else:
        show_facts(_facts(found))
    if not found.is_finished:
        raise typer.Exit(EXIT_INCOMPLETE)
    if found.tally.failed:
        raise typer.Exit(EXIT_SOME_FAILED)


def _facts(found: "RunStatus") -> dict[str, str]:
    tally = found.tally
    counts = ", ".join(f"{n} {status}" for status, n in sorted(tally.statuses.items()))
    made = {"masks": str(tally.masks)}
    if found.embed_dtype is not None:
        made = {"makes": f"embeddings in {found.embed_dtype}"}
    facts = {
        "state": _state(found),
        "images": f"{tally.images} of {found.n_images} ({counts or 'none'})",
        **made,
        **({} if found.prompts is None else {"prompts": describe_prompts(found.prompts, tally)}),
        "shards": f"{found.n_committed} of {found.n_shards}",
        "rate": "?" if found.images_per_s is None else f"{found.images_per_s:.2f} images/s",
        "began": _moment(found.began),
        "last event": _moment(found.last_event),
    }
    if found.drivers:
        facts["driver"] = "; ".join(map(_describe, found.drivers))
        facts["left"] = duration(found.seconds_left)
    if found.refiltered_from is not None:
        how = ", approximately: a fresh run's masks may differ" if found.is_approximate else ""
        facts["refiltered"] = f"from run {found.refiltered_from}{how}"
    if found.stopped is not None:
        facts["stopped"] = found.stopped
    return facts | {f"shard {n} failed": why for n, why in found.failed_shards.items()}


def _state(found: "RunStatus") -> str:
    if found.drivers:
        return "finished, failed images are done again" if found.is_finished else "running"
    return "finished" if found.is_finished else "not finished, and nobody is at work"


def _describe(driver: "Holder") -> str:
    what = "?" if driver.pid is None else f"process {driver.pid} on {driver.host}"
    return f"{what}, slice {driver.slice}" if driver.slice else what


def _moment(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(seconds))


def verify(run: RunArgument, workers: ProcessesOption = None, as_json: JsonOption = False) -> None:
    """Look at every committed byte again: ids, sha256, footers, masks.

    Exit codes: 0 all is well, 4 so is all that is there, but the run is unfinished, 5 damaged.
    """
    from pipelines.corpus.verify import verify as check  # noqa: PLC0415

    with CountDisplay(errors) as display:
        verdicts = list(check(run, workers, display.update))
    n_rows = sum(verdict.n_rows for verdict in verdicts)
    damaged = [verdict for verdict in verdicts if verdict.problems]
    n_problems = sum(len(verdict.problems) for verdict in damaged)
    unfinished = next((v.unfinished for v in verdicts if v.unfinished), None)
    if as_json:
        problems = [{"shard": v.shard, "problem": text} for v in damaged for text in v.problems]
        show_json({"n_rows": n_rows, "unfinished": unfinished, "problems": problems})
    else:
        for text in (text for verdict in damaged for text in verdict.problems):
            say(text)
        say(f"{n_rows} rows, {n_problems} problems")
        if unfinished is not None:
            say(f"unfinished: {unfinished}")
    if n_problems:
        raise typer.Exit(EXIT_STORAGE)
    if unfinished is not None:
        raise typer.Exit(EXIT_INCOMPLETE)


def gc(
    run: RunArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete what no commit names: the files of attempts that were lost or superseded."""
    from pipelines.corpus.gc import collect_garbage  # noqa: PLC0415

    garbage = collect_garbage(run, dry_run=dry_run)
    n_bytes = sum(garbage.values())
    if as_json:
        show_json({"is_deleted": not dry_run, "n_bytes": n_bytes, "files": garbage})
        return
    if garbage:
        show_table(("file", "bytes"), [(name, str(size)) for name, size in garbage.items()])
    verb = "would be deleted" if dry_run else "deleted"
    say(f"{len(garbage)} files, {n_bytes / 1e6:.1f} MB {verb}")
