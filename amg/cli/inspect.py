"""`amg status`, `amg verify` and `amg gc`: what looks after a run's folder."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from amg.cli.options import (
    EXIT_INCOMPLETE,
    EXIT_SOME_FAILED,
    EXIT_STORAGE,
    ProcessesOption,
    RunArgument,
    errors,
)
from amg.cli.progress import CountDisplay
from amg.cli.run import describe


def status(
    out: RunArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON on stdout.")] = False,
) -> None:
    """Say how far a run is, from its commits. Exit codes as `amg run`."""
    from pipelines.corpus.run import summarize  # noqa: PLC0415

    report = summarize(out)
    if as_json:
        Console(soft_wrap=True).print_json(json.dumps(asdict(report)))
    else:
        describe(report)
    if not report.is_complete:
        raise typer.Exit(EXIT_INCOMPLETE)
    if report.tally.failed:
        raise typer.Exit(EXIT_SOME_FAILED)


def verify(
    out: RunArgument,
    workers: ProcessesOption = None,
) -> None:
    """Look at every committed byte again: ids, sha256, footers, masks. Exit code 5: damaged."""
    from pipelines.corpus.verify import verify as check  # noqa: PLC0415

    n_rows = n_problems = 0
    with CountDisplay(errors) as display:
        for verdict in check(out, workers, display.update):
            n_rows += verdict.n_rows
            n_problems += len(verdict.problems)
            for problem in verdict.problems:
                errors.print(problem, markup=False, soft_wrap=True)
    errors.print(f"{n_rows} rows, {n_problems} problems")
    if n_problems:
        raise typer.Exit(EXIT_STORAGE)


def gc(
    out: RunArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Delete what no commit names: the files of attempts that were lost or superseded."""
    from pipelines.corpus.gc import collect_garbage  # noqa: PLC0415

    garbage = collect_garbage(out, dry_run=dry_run)
    for name in garbage:
        errors.print(name, markup=False, soft_wrap=True)
    verb = "would be deleted" if dry_run else "deleted"
    errors.print(f"{len(garbage)} files, {sum(garbage.values()) / 1e6:.1f} MB {verb}")
