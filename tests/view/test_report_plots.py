"""Bar charts: every count is in a bar, and every bar in the drawing."""

import numpy as np
import pytest

from amg.view.report import words
from amg.view.report.counting import Histogram, even_edges, log_edges, whole_edges
from amg.view.report.plots import LEFT, RIGHT, Scale, draw

LOG = Scale(words.short_number, is_log=True)
SCORE = Scale(words.score)
WHOLE = Scale(words.whole_number, is_whole=True)


def _histogram(edges, values):
    histogram = Histogram(edges)
    histogram.add(values)
    return histogram


def _draw(scale, **histograms):
    return draw("key", "Title", "unit", histograms, scale)


@pytest.mark.parametrize(
    ("edges", "scale", "values"),
    [
        (log_edges(0, 9, 5), LOG, np.random.default_rng(0).lognormal(8, 2, 3000)),
        (log_edges(0, 9, 5), LOG, [1e12]),
        (log_edges(0, 9, 5), LOG, [5000, 5100]),
        (even_edges(1, 100), SCORE, np.random.default_rng(1).beta(8, 2, 3000)),
        (even_edges(1, 100), SCORE, [1.0]),
        (even_edges(1, 100), SCORE, [0.0, 1.0]),
        (whole_edges(2**14), WHOLE, np.random.default_rng(2).poisson(90, 3000)),
        (whole_edges(2**14), WHOLE, [0]),
        (whole_edges(2**14), WHOLE, [0, 2**15]),
    ],
    ids=[f"{kind}-{what}" for kind in ("log", "score", "whole") for what in ("many", "one", "two")],
)
def test_bars_hold_all_counts_and_lie_in_the_drawing(edges, scale, values):
    chart = _draw(scale, masks=_histogram(edges, values))
    (panel,) = chart.panels
    assert sum(int(bar.text.replace(",", "")) for bar in panel.bars) == len(values)
    assert 1 <= len(panel.bars) <= 46
    for bar in panel.bars:
        assert bar.x >= LEFT
        assert bar.x + bar.width <= RIGHT
        assert panel.top - 1e-6 <= bar.y <= panel.base
        assert bar.y + bar.height == pytest.approx(panel.base)
        assert bar.height >= 1
    assert max(bar.height for bar in panel.bars) == pytest.approx(panel.base - panel.top)
    assert len(chart.x_ticks) >= 1
    assert all(LEFT - 1e-6 <= tick.at <= RIGHT + 1e-6 for tick in chart.x_ticks)
    assert all(panel.top - 1e-6 <= tick.at < panel.base for tick in panel.y_ticks)
    assert len({tick.text for tick in panel.y_ticks}) == len(panel.y_ticks) >= 1


def test_labels_say_what_a_bar_counts():
    chart = _draw(WHOLE, images=_histogram(whole_edges(1000), [0, 3, 199]))
    bars = [(bar.label, bar.text) for bar in chart.panels[0].bars]
    assert bars == [("0 to 4", "2"), ("195 to 199", "1")]
    chart = _draw(WHOLE, images=_histogram(whole_edges(1000), [7]))
    assert [bar.label for bar in chart.panels[0].bars] == ["7"]
    chart = _draw(SCORE, masks=_histogram(even_edges(1, 100), [0.985]))
    assert [bar.label for bar in chart.panels[0].bars] == ["0.98 to 0.99"]


def test_heights_are_proportional():
    chart = _draw(WHOLE, images=_histogram(whole_edges(10), [1] * 4 + [2] * 2 + [3]))
    first, second, third = (bar.height for bar in chart.panels[0].bars)
    assert (second / first, third / first) == (pytest.approx(0.5), pytest.approx(0.25))


def test_panels_share_an_axis_and_one_may_be_empty():
    edges = log_edges(-5, 5, 5)
    chart = _draw(
        Scale(words.seconds, is_log=True),
        reading=_histogram(edges, [0.002]),
        encoder=_histogram(edges, []),
        masks=_histogram(edges, [5.0]),
    )
    assert [[bar.text for bar in panel.bars] for panel in chart.panels] == [["1"], [], ["1"]]
    assert chart.panels[0].base < chart.panels[1].top < chart.panels[2].base < chart.height
    assert chart.panels[0].bars[0].x < chart.panels[2].bars[0].x
    assert chart.panels[1].note == "none"
    assert chart.description.startswith("reading: median 2 ms, nine in ten")


def test_nothing_is_drawn_of_nothing():
    assert _draw(SCORE, masks=_histogram(even_edges(1, 10), [])) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (words.percent(0), "0 %"),
        (words.percent(1), "100 %"),
        (words.percent(0.99999), "99.9 %"),
        (words.percent(0.00001), "0.1 %"),
        (words.percent(0.25), "25.0 %"),
        (words.seconds(0.0034), "3.4 ms"),
        (words.seconds(0.25), "250 ms"),
        (words.seconds(3.456), "3.5 s"),
        (words.seconds(59.7), "1 min 0 s"),
        (words.seconds(3599.6), "1 h 0 min"),
        (words.seconds(100_000), "27 h 46 min"),
        (words.short_number(999), "999"),
        (words.short_number(12_345), "12.3k"),
        (words.short_number(999_999), "1M"),
        (words.short_number(0.3), "0.3"),
        (words.many(1, "image"), "1 image"),
        (words.many(2000, "image"), "2,000 images"),
        (words.moment(0), "1 January 1970, 00:00 UTC"),
    ],
)
def test_words(value, text):
    assert value == text
