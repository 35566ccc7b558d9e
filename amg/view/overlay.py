"""Pictures of masks: each in a colour of its own, over the image."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from amg.ops import rle
from amg.ops.colours import Colour, index_colour
from amg.records import Mask

Label = Literal["id", "score", "category"]

_FILL_OPACITY = 0.5
_BACKGROUND_BRIGHTNESS = 0.6
_GAP_PX = 8
_PX_PER_OUTLINE_PX = 1000  # of the image's long side
_PX_PER_FONT_PX = 60
_FONT_PX = 10, 40
_NOTHING = -1
_NO_CATEGORY = 255, 255, 255


class _Drawing(NamedTuple):
    """Which mask each pixel shows, (H, W) int32; and each mask's outline, by its index."""

    shown: np.ndarray
    outlines: dict[int, Sequence[np.ndarray]]


def draw_overlay(
    image: np.ndarray,
    masks: Sequence[Mask],
    *,
    chosen: Sequence[int] | None = None,
    outlines_only: bool = False,
    labels: Label | None = None,
    colours: Sequence[Colour] | None = None,
) -> np.ndarray:
    """Fill and outline masks over an image, (H, W, 3) uint8 RGB to the same.

    Each pixel takes the colour of the smallest mask that covers it, so that parts stay visible
    on their objects; what no mask covers is grey. `chosen` draws only the masks of these indices;
    a mask's colour and id are those of its index in `masks`, whichever others are drawn.
    `outlines_only` leaves the image as it is inside. `labels` writes each mask's index or predicted
    IoU into what can be seen of it, or its category; those too small for the words stay without.
    `colours` are others than those of their indices.
    """
    colours = colours or [index_colour(i) for i in range(len(masks))]

    drawing = _lay_out(image, masks, range(len(masks)) if chosen is None else chosen)
    canvas = image.copy() if outlines_only else _fill(image, drawing.shown, colours)
    thickness = max(1, round(max(image.shape[:2]) / _PX_PER_OUTLINE_PX))
    for index, outline in drawing.outlines.items():
        cv2.drawContours(canvas, outline, -1, colours[index], thickness, cv2.LINE_AA)
    if labels is not None:
        words = {i: _word(masks[i], i, labels) for i in drawing.outlines}
        canvas = _write_labels(canvas, drawing, words)
    return canvas


def beside(image: np.ndarray, overlay: np.ndarray) -> np.ndarray:
    """Place the image and its overlay beside each other, (H, 2W + gap, 3) uint8 RGB."""
    gap = np.full((image.shape[0], _GAP_PX, 3), 255, dtype=np.uint8)
    return np.hstack([image, gap, overlay])


def masks_at(masks: Sequence[Mask], point_xy: tuple[int, int]) -> list[int]:
    """The indices of the masks that cover a pixel, smallest first."""
    x, y = point_xy
    covering = [i for i, mask in enumerate(masks) if rle.covers(mask.rle, x, y)]
    return sorted(covering, key=lambda i: masks[i].area)


def _lay_out(image: np.ndarray, masks: Sequence[Mask], chosen: Sequence[int]) -> _Drawing:
    """Largest first, so that smaller ones come to lie above."""
    shown = np.full(image.shape[:2], _NOTHING, dtype=np.int32)
    outlines: dict[int, Sequence[np.ndarray]] = {}
    for index in sorted(chosen, key=lambda i: masks[i].area, reverse=True):
        bits = rle.decode(masks[index].rle)
        shown[bits] = index
        outlines[index], _ = cv2.findContours(
            np.ascontiguousarray(bits, dtype=np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
        )
    return _Drawing(shown, outlines)


def _fill(image: np.ndarray, shown: np.ndarray, of_masks: Sequence[Colour]) -> np.ndarray:
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    canvas = np.round(grey * np.float32(_BACKGROUND_BRIGHTNESS)).astype(np.uint8)
    colours = np.array(of_masks, dtype=np.float32).reshape(-1, 3)
    covered = shown != _NOTHING
    fill = colours[shown[covered]] * _FILL_OPACITY
    canvas[covered] = image[covered] * (1 - _FILL_OPACITY) + fill
    return canvas


def category_colours(masks: Sequence[Mask], categories: Mapping[str, int]) -> list[Colour]:
    """A colour for each mask: its category's; without one, white."""
    places = {name: i for i, name in enumerate(sorted(categories, key=lambda n: categories[n]))}
    return [_NO_CATEGORY if m.category is None else index_colour(places[m.category]) for m in masks]


def _word(mask: Mask, index: int, label: Label) -> str:
    if label == "category":
        return mask.category or ""
    return str(index) if label == "id" else f"{mask.predicted_iou:.2f}"


def _write_labels(canvas: np.ndarray, drawing: _Drawing, words: dict[int, str]) -> np.ndarray:
    """Each word at the place of its mask's visible part that is farthest from any border."""
    size_px = min(max(round(max(canvas.shape[:2]) / _PX_PER_FONT_PX), _FONT_PX[0]), _FONT_PX[1])
    font = ImageFont.load_default(size_px)
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    for index, word in words.items():
        if not drawing.outlines[index]:
            continue
        x0, y0, width, height = cv2.boundingRect(np.concatenate(drawing.outlines[index]))
        visible = drawing.shown[y0 : y0 + height, x0 : x0 + width] == index
        border = np.pad(visible.astype(np.uint8), 1)
        room_px = cv2.distanceTransform(border, cv2.DIST_L2, cv2.DIST_MASK_3)[1:-1, 1:-1]
        y, x = np.unravel_index(int(room_px.argmax()), room_px.shape)
        if 2 * room_px[y, x] >= draw.textlength(word, font=font):
            at = x0 + int(x), y0 + int(y)
            draw.text(at, word, "white", font, "mm", stroke_width=2, stroke_fill="black")
    return np.array(picture)
