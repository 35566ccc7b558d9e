"""Which distributions of a run are drawn."""

from amg.view.report import words
from amg.view.report.plots import Chart, Scale, draw
from amg.view.report.summary import Summary

_STAGE_NAMES = {"decode": "Reading, preparing", "encode": "Image encoder", "masks": "Masks"}

_PIXELS = Scale(words.short_number, is_log=True)
_SCORES = Scale(words.score, least_step=0.01)
_COUNTS = Scale(words.whole_number, is_whole=True)
_SHARES = Scale(words.round_percent)
_SECONDS = Scale(words.seconds, is_log=True)


def draw_charts(summary: Summary) -> list[Chart]:
    """Draw what there is to draw: a run without masks has no scores."""
    stages = {_STAGE_NAMES[stage]: found for stage, found in summary.seconds.items()}
    area = "Pixels of a mask, on a logarithmic axis"
    iou = "The model's own estimate of a mask's quality; 1 is best"
    stability = "How little a mask changes with the threshold; 1 is not at all"
    per_image = "Of images that did not fail"
    coverage = "Share of an image's pixels under a mask"
    time = "Of an image, on a logarithmic axis"
    charts = (
        draw("areas", "Mask area", area, {"Masks": summary.areas}, _PIXELS),
        draw("ious", "Predicted IoU", iou, {"Masks": summary.predicted_ious}, _SCORES),
        draw("stabilities", "Stability score", stability, {"Masks": summary.stabilities}, _SCORES),
        draw("masks", "Masks an image", per_image, {"Images": summary.masks_per_image}, _COUNTS),
        draw("coverages", "Coverage", coverage, {"Images": summary.coverages}, _SHARES),
        draw("seconds", "Seconds by stage", time, stages, _SECONDS),
    )
    return [chart for chart in charts if chart is not None]
