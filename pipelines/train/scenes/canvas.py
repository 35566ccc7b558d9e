"""The canvas: paints pieces back to front and keeps the label of every pixel."""

from dataclasses import dataclass

import cv2
import numpy as np

from pipelines.train.scenes.bank import bank, sample
from pipelines.train.scenes.dice import Dice
from pipelines.train.scenes.lighting import Light, relief
from pipelines.train.scenes.looks import REFERENCE_PX, Look
from pipelines.train.scenes.palette import Rgb

_SUBPIXEL = 4


@dataclass(frozen=True)
class Finish:
    """How a piece is painted: see `figure.Piece`; `blur_px` is its own defocus, `gloss` 0..1."""

    tone: float = 1.0
    relief: float = 0.0
    gloss: float = 0.0
    rag: float = 0.0
    blur_px: float = 0.0
    hollow: bool = False


def defocused(image: np.ndarray, sigma_px: float) -> np.ndarray:
    """The image (h, w, 3) blurred; wide blurs are done on a smaller copy, for speed."""
    shrink = int(sigma_px / 1.5)
    height, width = image.shape[:2]
    if shrink < 2 or min(height, width) < 4 * shrink:
        return cv2.GaussianBlur(image, (0, 0), sigma_px, borderType=cv2.BORDER_REPLICATE)
    small = cv2.resize(image, (width // shrink, height // shrink), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma_px / shrink, borderType=cv2.BORDER_REPLICATE)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


class Canvas:
    """An image (S,S,3) float32 0..255 and the part id (S,S) int32 of each pixel.

    Parts belong to objects and objects to groups by the two lists; the label maps of the coarser
    levels follow from them at the end.
    """

    def __init__(self, size_px: int, dice: Dice, light: Light) -> None:
        self.size_px = size_px
        self.dice = dice
        self.light = light
        self.image = np.zeros((size_px, size_px, 3), np.float32)
        self.part = np.zeros((size_px, size_px), np.int32)
        self.object_of_part: list[int] = []
        self.group_of_object: list[int] = []
        self.groups = 0

    @property
    def unit_px(self) -> float:
        """Pixels here for one pixel of a 224 px frame."""
        return self.size_px / REFERENCE_PX

    def new_group(self) -> int:
        """A fresh group id."""
        self.groups += 1
        return self.groups - 1

    def new_object(self, group: int) -> int:
        """A fresh object id in `group`."""
        self.group_of_object.append(group)
        return len(self.group_of_object) - 1

    def new_part(self, owner: int) -> int:
        """A fresh part id in object `owner`."""
        self.object_of_part.append(owner)
        return len(self.object_of_part) - 1

    def box(self, outlines: list[np.ndarray], pad_px: float) -> tuple[int, int, int, int] | None:
        """Left, top, width, height of the outlines' box within the frame, None if outside."""
        dots = outlines[0] if len(outlines) == 1 else np.concatenate(outlines)
        x, y, wide, tall = cv2.boundingRect(dots.astype(np.float32, copy=False))
        left, top = max(int(x - pad_px), 0), max(int(y - pad_px), 0)
        right = min(int(x + wide + pad_px) + 1, self.size_px)
        bottom = min(int(y + tall + pad_px) + 1, self.size_px)
        if right - left < 2 or bottom - top < 2:
            return None
        return left, top, right - left, bottom - top

    def paint(
        self, outlines: list[np.ndarray], parts: list[int], look: Look, finish: Finish
    ) -> None:
        """Fill `outlines` (N,2) in pixels with a look; one part id for all, or one for each."""
        rag_px = finish.rag * 14 * self.unit_px
        box = self.box(outlines, 2 + 2.5 * finish.blur_px + rag_px)
        if box is None:
            return
        left, top, width, height = box
        alpha = np.zeros((height, width), np.uint8)
        fixed = [np.round((o - (left, top)) * (1 << _SUBPIXEL)).astype(np.int32) for o in outlines]
        for curves in [fixed] if finish.hollow else [[curve] for curve in fixed]:
            cv2.fillPoly(alpha, curves, 255, cv2.LINE_AA, _SUBPIXEL)
        if rag_px > 0.8:
            alpha = self._ragged(alpha, rag_px)
        rows, columns = slice(top, top + height), slice(left, left + width)
        labels = self.part[rows, columns]
        labels[alpha > 127] = parts[0]
        for outline, part in zip(fixed[1:], parts[1:], strict=False):
            cv2.fillPoly(labels, [outline], part, cv2.LINE_8, _SUBPIXEL)
        self._fill(self.image[rows, columns], alpha, look.render(left, top, width, height), finish)

    def _fill(
        self, target: np.ndarray, alpha: np.ndarray, filled: np.ndarray, finish: Finish
    ) -> None:
        if finish.relief > 0.02 and alpha.size > 300:
            shade = relief(alpha, self.light, finish.relief, finish.gloss) * finish.tone
            filled *= shade[..., None]
        elif finish.tone != 1.0:
            filled *= finish.tone
        if finish.blur_px > 0.3:
            alpha = cv2.GaussianBlur(alpha, (0, 0), finish.blur_px, borderType=cv2.BORDER_REPLICATE)
            filled = defocused(filled, finish.blur_px)
        weight = alpha.astype(np.float32) * (1 / 255)
        cv2.blendLinear(filled, target, weight, 1 - weight, target)

    def _ragged(self, alpha: np.ndarray, rag_px: float) -> np.ndarray:
        """Break the border into leaves, hairs or tufts by thresholding it blurred plus noise."""
        height, width = alpha.shape
        tile = self.dice.pick(bank()[self.dice.pick(("leaves", "noise", "fur", "pebbles"))])
        level = 1 if rag_px / self.unit_px < 5 else 0
        reach, shift = 1.0 / self.unit_px, (self.dice.uniform(0, 256), self.dice.uniform(0, 256))
        matrix = np.array([[reach, 0, shift[0]], [0, reach, shift[1]]])
        noise = sample(tile, level, matrix, width, height)
        shrink = max(1, round(rag_px / 3))
        small = cv2.resize(
            alpha, (max(2, width // shrink), max(2, height // shrink)), interpolation=cv2.INTER_AREA
        )
        small = cv2.GaussianBlur(
            small, (0, 0), max(0.5, 0.5 * rag_px / shrink), borderType=cv2.BORDER_REPLICATE
        )
        soft = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
        mixed = (
            soft.astype(np.float32) * 3 + noise.astype(np.float32) * 1.6 - (1.6 * 128 + 1.5 * 255)
        )
        return np.clip(mixed * 1.3 + 128, 0, 255).astype(np.uint8)

    def shade(self, outlines: list[np.ndarray], strength: float, softness_px: float) -> None:
        """Darken the image under soft outlines (a cast shadow); labels stay."""
        box = self.box(outlines, 2.5 * softness_px)
        if box is None or strength < 0.02:
            return
        left, top, width, height = box
        shrink = max(1.0, softness_px / 1.5)
        size = max(2, round(width / shrink)), max(2, round(height / shrink))
        mask = np.zeros(size[::-1], np.uint8)
        for outline in outlines:
            cv2.fillPoly(
                mask,
                [np.round((outline - (left, top)) * (16 / shrink)).astype(np.int32)],
                255,
                8,
                4,
            )
        mask = cv2.GaussianBlur(mask, (0, 0), max(0.4, softness_px / shrink))
        dark = 1 - cv2.resize(mask, (width, height)).astype(np.float32) * (strength / 255)
        self.image[top : top + height, left : left + width] *= dark[..., None]

    def blur(self, sigma_px: float) -> None:
        """Defocus all that has been painted so far."""
        if sigma_px > 0.3:
            self.image = defocused(self.image, sigma_px)

    def mean_colour(self, x: float, y: float, radius: float) -> Rgb:
        """The mean RGB about a pixel, 0..255."""
        last = self.size_px - 1
        left, top = int(min(max(x - radius, 0), last)), int(min(max(y - radius, 0), last))
        patch = self.image[top : int(y + radius) + 1 : 4, left : int(x + radius) + 1 : 4]
        if not patch.size:
            patch = self.image[::16, ::16]
        red, green, blue = patch.reshape(-1, 3).mean(0)
        return float(red), float(green), float(blue)
