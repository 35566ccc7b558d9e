"""Drawings of how well a score tells the true IoU: a reliability diagram, as plain geometry."""

from amg.evaluate.results import CalibrationBin, ScoreCalibration
from amg.view.report import words
from amg.view.report.plots import (
    BOTTOM,
    PANEL_GAP,
    PANEL_HEIGHT,
    SMALL_PANEL_HEIGHT,
    TOP,
    Bar,
    Chart,
    Panel,
    Scale,
    Tick,
    bar,
    x_place,
    x_values,
)

_CAPTION = "A mask's IoU with the most similar true one, the mean over masks of a score"
_NAMES = {"predicted_iou": "Predicted IoU", "stability_score": "Stability score"}


def draw_calibration(key: str, score: ScoreCalibration) -> Chart | None:
    """Mean true IoU over the score, and how many masks that is of; None if there are none."""
    bins = score.wider_bins()
    if not bins:
        return None
    low, high = bins[0].low, bins[-1].high
    upper = top, base = float(TOP), float(TOP + PANEL_HEIGHT)
    lower = base + PANEL_GAP, base + PANEL_GAP + SMALL_PANEL_HEIGHT

    def height(iou: float) -> float:
        return round(base - iou * (base - top), 2)

    ious = Panel(
        "Mean true IoU",
        "the line is where score and IoU are equal",
        "Mean true IoU",
        *upper,
        [_bar(part, part.mean_iou, words.score(part.mean_iou), bins, upper) for part in bins],
        [Tick(height(iou), words.score(iou)) for iou in (0.5, 1.0)],
        diagonal=(x_place(low, low, high), height(low), x_place(high, low, high), height(high)),
    )
    most = max(part.n_masks for part in bins)
    counts = Panel(
        "Masks",
        f"{words.whole_number(score.n_masks)} in all",
        "Count",
        *lower,
        [
            _bar(part, part.n_masks / most, words.whole_number(part.n_masks), bins, lower)
            for part in bins
        ],
        [],
    )
    scale = Scale(words.score, least_step=0.01)
    name, correlation = _NAMES[score.score], _correlation(score)
    return Chart(
        key,
        f"{name} and true IoU",
        name,
        f"{_CAPTION}: {correlation}",
        f"{correlation}; mean true IoU {_first_and_last(bins)}",
        lower[1] + BOTTOM,
        [ious, counts],
        [Tick(x_place(v, low, high), words.score(v)) for v in x_values(low, high, scale)],
    )


def _bar(
    part: CalibrationBin,
    share: float,
    text: str,
    bins: tuple[CalibrationBin, ...],
    panel: tuple[float, float],
) -> Bar:
    low, high = bins[0].low, bins[-1].high
    ends = x_place(part.low, low, high), x_place(part.high, low, high)
    label = f"{words.score(part.low)} to {words.score(part.high)}"
    return bar(ends, share, panel, label=label, text=text)


def _first_and_last(bins: tuple[CalibrationBin, ...]) -> str:
    first, last = bins[0], bins[-1]
    return (
        f"{words.score(first.mean_iou)} at scores from {words.score(first.low)}, "
        f"{words.score(last.mean_iou)} at scores from {words.score(last.low)}"
    )


def _correlation(score: ScoreCalibration) -> str:
    if score.spearman is None or score.pearson is None:
        return "one of them is the same for all masks"
    return f"Spearman's correlation {score.spearman:.2f}, Pearson's {score.pearson:.2f}"
