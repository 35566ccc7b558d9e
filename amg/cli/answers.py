"""What a query answers, on stdout: tables for people, one JSON object for programs."""

import json
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from amg.runs.folder import PromptCounts, Tally

answers = Console(highlight=False, emoji=False)


def say(text: str) -> None:
    """A line of the answer, however long."""
    answers.print(text, markup=False, soft_wrap=True)


def show_json(values: Mapping[str, object]) -> None:
    """The whole answer as one JSON object."""
    say(json.dumps(values, indent=2, ensure_ascii=False))


def show_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on a terminal; elsewhere its columns are aligned, and no cell is cut or folded."""
    if answers.is_terminal:
        table = Table(*map(escape, head), show_header=any(head))
        for row in rows:
            table.add_row(*map(escape, row))
        answers.print(table)
        return
    lines = [head, *rows] if any(head) else [*rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        say("  ".join(cells).rstrip())


def show_facts(facts: Mapping[str, str]) -> None:
    """What is known of one thing, a line each."""
    show_table(("", ""), [*facts.items()])


def describe_prompts(counts: PromptCounts, tally: Tally) -> str:
    """What has become of a run's prompts."""
    n = tally.prompt_errors
    return (
        f"{counts}; {n} could not be asked: their rows' prompt_errors say why" if n else str(counts)
    )
