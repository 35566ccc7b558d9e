"""Bar charts as plain geometry, which a template turns into SVG and a table beside it.

Lengths are in the units of the drawing's viewBox, y downwards.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from amg.view.report.counting import Histogram, Int64s
from amg.view.report.words import short_number, whole_number

WIDTH = 400
LEFT, RIGHT = 36, 384
TOP, BOTTOM = 16, 26
PANEL_HEIGHT = 148
SMALL_PANEL_HEIGHT = 40
PANEL_GAP = 22
GAP = 1  # between bars
_MAX_BARS = 40
_FEW_TICKS = 3


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar, the values it stands for, and its amount in words."""

    x: float
    y: float
    width: float
    height: float
    label: str
    text: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A number at an axis."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars on one base line, under name and note if the chart has several panels.

    `measure` says what a bar's amount is. `diagonal` (x1, y1, x2, y2) is a line to compare with.
    """

    name: str
    note: str
    measure: str
    top: float
    base: float
    bars: list[Bar]
    y_ticks: list[Tick]
    diagonal: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing of panels that share an x axis, which is of `x_name`.

    `description` says for those who do not see it what can be seen; `caption` is for all.
    """

    key: str
    title: str
    x_name: str
    caption: str
    description: str
    height: float
    panels: list[Panel]
    x_ticks: list[Tick]


@dataclass(frozen=True, slots=True)
class Scale:
    """How values become places on the x axis, and words. `is_whole`: they are whole numbers.

    `least_step`: values nearer to each other than that have the same words.
    """

    words: Callable[[float], str]
    is_log: bool = False
    is_whole: bool = False
    least_step: float = 0.0

    def forward(self, value: float) -> float:
        """Where a value is, up to the axis's own scale."""
        return math.log10(value) if self.is_log else value

    def span(self, low: float, high: float) -> str:
        """What a bar counts."""
        if self.is_whole:
            low, high = math.ceil(low), math.floor(high)
        return self.words(low) if low == high else f"{self.words(low)} to {self.words(high)}"


def draw(
    key: str, title: str, unit: str, histograms: dict[str, Histogram], scale: Scale
) -> Chart | None:
    """Draw histograms of the same edges, one panel each; None if nothing was counted."""
    span = _span([histogram.counts for histogram in histograms.values()])
    if span is None:
        return None
    edges = next(iter(histograms.values())).edges
    step = 1 if scale.is_log else _step(span)
    start = span.start // step * step
    stop = min(-(-span.stop // step) * step, len(edges) - 1)
    cuts = np.minimum(np.arange(start, stop + step, step), stop)
    first, last = float(edges[cuts[0]]), float(edges[cuts[-1]])
    low, high = scale.forward(first), scale.forward(last)

    def place(value: float) -> float:
        return x_place(scale.forward(value), low, high)

    is_single = len(histograms) == 1
    panel_height = PANEL_HEIGHT if is_single else SMALL_PANEL_HEIGHT
    panels, top = [], float(TOP)
    for name, histogram in histograms.items():
        counts = np.array([histogram.counts[a:b].sum() for a, b in pairwise(cuts)])
        base = top + panel_height
        ends = [(float(edges[a]), float(edges[b])) for a, b in pairwise(cuts)]
        bars = _bars(counts, ends, place, scale, (top, base))
        ticks = _y_ticks(int(counts.max()), panel_height, base) if is_single else []
        panels.append(Panel(name, _median(histogram, scale), "Count", top, base, bars, ticks))
        top = base + PANEL_GAP
    height = panels[-1].base + BOTTOM
    x_ticks = [Tick(place(v), scale.words(v)) for v in x_values(first, last, scale)]
    names = [f"{name}: " if not is_single else "" for name in histograms]
    ranges = [_range(histogram, scale) for histogram in histograms.values()]
    description = "; ".join(map("".join, zip(names, ranges, strict=True)))
    caption = f"{unit}: {description}" if is_single else unit
    return Chart(key, title, title, caption, description, height, panels, x_ticks)


def x_place(value: float, low: float, high: float) -> float:
    """Where a value is on an axis from low to high."""
    return round(LEFT + (value - low) / (high - low) * (RIGHT - LEFT), 2)


def bar(ends: tuple[float, float], share: float, panel: tuple[float, float], **words: Any) -> Bar:
    """A bar between two places, `share` of the panel (top, base) high: at least to be seen."""
    (begin, end), (top, base) = ends, panel
    height = round(max(share * (base - top), 1.0), 2)
    return Bar(begin, base - height, max(end - begin - GAP, GAP), height, **words)


def _span(all_counts: Sequence[Int64s]) -> range | None:
    """The bins from the first that counted something to the last."""
    used = np.flatnonzero(np.sum(all_counts, axis=0))
    return range(int(used[0]), int(used[-1]) + 1) if len(used) else None


def _step(span: range) -> int:
    """How many bins make a bar: 1, 2 or 5 times a power of ten."""
    step = next(s for s in _round_numbers(1) if len(span) / s <= _MAX_BARS)
    return int(step)


def _round_numbers(first: float) -> Iterator[float]:
    """1, 2, 5, 10, 20, ... times `first`."""
    while True:
        yield from (first, 2 * first, 5 * first)
        first *= 10


def _bars(
    counts: Int64s,
    ends: Sequence[tuple[float, float]],
    place: Callable[[float], float],
    scale: Scale,
    panel: tuple[float, float],
) -> list[Bar]:
    most = int(counts.max())
    return [
        bar(
            (place(begin), place(end)),
            count / most,
            panel,
            label=scale.span(begin, end),
            text=whole_number(count),
        )
        for (begin, end), count in zip(ends, counts.tolist(), strict=True)
        if count
    ]


def _y_ticks(most: int, panel_height: float, base: float) -> list[Tick]:
    """Two or three round counts."""
    first = 10 ** math.floor(math.log10(most))
    step = next(s for s in _round_numbers(max(first / 10, 1)) if most / s <= _FEW_TICKS)
    return [
        Tick(base - value / most * panel_height, short_number(value))
        for value in np.arange(step, most + 1, step).tolist()
    ]


def x_values(low: float, high: float, scale: Scale) -> list[float]:
    """Round values on the axis: powers of ten where it is logarithmic."""
    if not scale.is_log:
        size = 10.0 ** math.floor(math.log10(high - low)) / 10
        steps = (s for s in _round_numbers(size) if (high - low) / s <= 2 * _FEW_TICKS)
        step = max(next(steps), scale.least_step)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        return [i * step for i in range(first, last + 1)]
    powers = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
    values = [10.0**power for power in powers]
    return values if len(values) > 1 else sorted({low, *values, high})


def _median(histogram: Histogram, scale: Scale) -> str:
    return f"median {scale.words(histogram.quantile(0.5))}" if histogram.total else "none"


def _range(histogram: Histogram, scale: Scale) -> str:
    if not histogram.total:
        return "none"
    low, high = (scale.words(histogram.quantile(q)) for q in (0.05, 0.95))
    return f"{_median(histogram, scale)}, nine in ten between {low} and {high}"
