"""What is said while work goes on, where nobody looks at a terminal."""

import io

from rich.console import Console

from amg.cli import progress
from amg.cli.progress import CountDisplay


def _said(monkeypatch, counts, seconds_each, **console):
    """What is written of (done, total) counts that come so many seconds apart."""
    clock = iter(float(seconds_each * step) for step in range(1000))
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    file = io.StringIO()
    with CountDisplay(Console(file=file, width=80, **console)) as display:
        for count in counts:
            now[0] = next(clock)
            display.update(*count)
    return file.getvalue()


def test_off_a_terminal_counts_are_lines_every_ten_seconds(monkeypatch):
    counts = [(i, 9, "shards") for i in range(1, 10)]
    assert _said(monkeypatch, counts, 4).splitlines() == ["4/9 shards", "7/9 shards"]


def test_short_work_says_nothing_off_a_terminal(monkeypatch):
    assert _said(monkeypatch, [(1, 2), (2, 2)], 1) == ""


def test_a_terminal_has_a_bar(monkeypatch):
    said = _said(monkeypatch, [(1, 2), (2, 2)], 1, force_terminal=True)
    assert "images" in said
    assert "2/2" in said
