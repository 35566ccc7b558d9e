"""How work is shown while it goes on: a bar on a terminal, elsewhere a line every ten seconds."""

import json
import time
from collections import deque
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from amg.errors import ConfigError
from amg.runs.schema import FAILED

if TYPE_CHECKING:
    from pipelines.corpus.state import RunState

STYLES = ("bar", "lines", "json", "none")
_LINE_EVERY_S = 10
_NOW_S = 30.0


class RunDisplay:
    """Shows the states of a run; a context manager.

    style: "bar", "lines", "json" (a JSON object a line on stdout) or "none"; by default a bar on a
    terminal and lines elsewhere. Raises ConfigError for any other.
    """

    def __init__(self, console: Console, style: str | None = None) -> None:
        if style not in (None, *STYLES):
            raise ConfigError(f"--progress {style!r}: expected one of {', '.join(STYLES)}")
        self._console = console
        self._style = style or ("bar" if console.is_terminal else "lines")
        self._recent: deque[tuple[float, int]] = deque()
        self._said = time.monotonic()
        self._bar = Progress(
            SpinnerColumn(),
            BarColumn(20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
            disable=self._style != "bar",
        )
        self._task = self._bar.add_task("run", total=None, text="workers are starting")

    def __enter__(self) -> "RunDisplay":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, state: "RunState") -> None:
        """Take a look at the run."""
        rates = self._rates(state)
        done = state.resumed.images + state.done.images
        text = _describe(state, *rates)
        self._bar.update(self._task, total=state.n_images, completed=done, text=text)
        now = time.monotonic()
        if self._style not in ("lines", "json") or now - self._said < _LINE_EVERY_S:
            return
        self._said = now
        if self._style == "json":
            Console(soft_wrap=True).print(_as_json(state, *rates), markup=False, highlight=False)
        else:
            self._console.print(
                f"{done}/{state.n_images} images, {text}", markup=False, soft_wrap=True
            )

    def _rates(self, state: "RunState") -> tuple[float, float]:
        """Images a second, in the last half minute and since this driver began."""
        now = time.monotonic()
        self._recent.append((now, state.done.images))
        while now - self._recent[0][0] > _NOW_S:
            self._recent.popleft()
        since, images = self._recent[0]
        current = (state.done.images - images) / (now - since) if now > since else 0.0
        return current, state.done.images / state.elapsed_s if state.elapsed_s else 0.0


class CountDisplay:
    """Shows how many of something are done; a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        columns = TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn()
        self._bar = Progress(
            *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
        )
        self._task = self._bar.add_task("", total=None)
        self._said = time.monotonic()

    def __enter__(self) -> "CountDisplay":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, done: int, total: int, what: str = "images") -> None:
        """Show that `done` of `total` are done, and of what."""
        self._bar.update(self._task, completed=done, total=total, description=what)
        if not self._console.is_terminal and time.monotonic() - self._said > _LINE_EVERY_S:
            self._said = time.monotonic()
            self._console.print(f"{done}/{total} {what}")


def _describe(state: "RunState", current: float, mean: float) -> str:
    failures = ", ".join(
        f"{state.done.statuses.get(kind, 0) + state.resumed.statuses.get(kind, 0)} {kind}"
        for kind in sorted(FAILED & {*state.done.statuses, *state.resumed.statuses})
    )
    starting = f"+{state.n_starting}" if state.n_starting else ""
    return (
        f"{current:.2f} images/s ({mean:.2f} mean), {state.done.masks} masks, "
        f"{failures or '0 failed'}, {state.n_workers}{starting} workers "
        f"{state.busy_share:.0%} busy, {duration(_seconds_left(state, mean))} left"
    )


def _seconds_left(state: "RunState", mean: float) -> float | None:
    left = state.n_images - state.resumed.images - state.done.images
    return left / mean if mean else None


def duration(seconds: float | None) -> str:
    """Hours, minutes and seconds, "?" where they are not known."""
    if seconds is None:
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


def _as_json(state: "RunState", current: float, mean: float) -> str:
    total = state.resumed + state.done
    values = {
        "images": total.images,
        "of": state.n_images,
        "masks": total.masks,
        "statuses": dict(total.statuses),
        "images_per_s": round(current, 3),
        "mean_images_per_s": round(mean, 3),
        "workers": state.n_workers,
        "busy_share": round(state.busy_share, 3),
        "left_s": _seconds_left(state, mean),
    }
    return json.dumps(values)
