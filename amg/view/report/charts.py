"""Which distributions of a run are drawn."""

from amg.view.report import words
from amg.view.report.plots import Chart, Scale, draw
from amg.view.report.summary import Summary

_STAGE_NAMES = {"decode": "reading the image", "encode": "image encoder", "masks": "making masks"}

_PIXELS = Scale(words.short_number, is_log=True)
_SCORES = Scale(words.score)
_COUNTS = Scale(words.whole_number, is_whole=True)
_SHARES = Scale(words.percent)
_SECONDS = Scale(words.seconds, is_log=True)


def draw_charts(summary: Summary) -> list[Chart]:
    """Draw what there is to draw: a run without masks has no scores."""
    stages = {_STAGE_NAMES[stage]: found for stage, found in summary.seconds.items()}
    masks, images = "masks", "images that did not fail"
    charts = (
        draw("areas", "Mask area", "pixels", {masks: summary.areas}, _PIXELS, masks),
        draw(
            *("ious", "Predicted IoU", "the model's own estimate, 1 is best"),
            *({masks: summary.predicted_ious}, _SCORES, masks),
        ),
        draw(
            *("stabilities", "Stability score", "1 does not move with the threshold"),
            *({masks: summary.stabilities}, _SCORES, masks),
        ),
        draw(
            *("masks", "Masks an image", "masks"),
            *({images: summary.masks_per_image}, _COUNTS, images),
        ),
        draw(
            *("coverages", "Coverage", "share of an image's pixels under a mask"),
            *({images: summary.coverages}, _SHARES, images),
        ),
        draw("seconds", "Seconds by stage", "seconds an image", stages, _SECONDS, "images"),
    )
    return [chart for chart in charts if chart is not None]
