"""The camera: tone, colour balance, motion blur, noise, resampling and JPEG, in that order."""

import math

import cv2
import numpy as np

from pipelines.train.scenes.dice import Dice
from pipelines.train.scenes.lighting import slow_light

_LEVEL = np.arange(256, dtype=np.float32) / 255


def develop(dice: Dice, image: np.ndarray) -> np.ndarray:
    """Turn a painted scene (S,S,3) float32 into a photograph (S,S,3) uint8 RGB."""
    size = image.shape[0]
    if dice.chance(0.75):
        image = image * slow_light(dice, size, dice.uniform(0, 0.3))
    if dice.chance(0.07):
        image = _motion(dice, image)
    if dice.chance(0.7):
        image = _saturated(dice, image)
    image = _exposed(dice, image)
    photo = np.clip(image, 0, 255).astype(np.uint8)
    photo = cv2.LUT(photo, _tone(dice))
    if dice.chance(0.05):
        photo = cv2.cvtColor(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    photo = _resampled(dice, photo)
    if dice.chance(0.7):
        photo = _noisy(dice, photo)
    if dice.chance(0.85):
        quality = dice.integer(35, 95)
        coded = cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        photo = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))
    return photo


def _exposed(dice: Dice, image: np.ndarray) -> np.ndarray:
    """Bring mean and spread toward those of photographs, as a camera's meter would."""
    few = image[::8, ::8]
    mean, spread = float(few.mean()), float(few.std()) + 1.0
    wanted = min(max(dice.normal(118, 30), 45), 200)
    stretch = min(max((dice.uniform(42, 74) / spread) ** 0.7, 0.8), 1.55)
    gain = (wanted / max(mean, 5.0)) ** 0.8
    stretch = max(stretch, min(gain, 1.4))
    return image * stretch + (mean * gain - mean * stretch)


def _saturated(dice: Dice, image: np.ndarray) -> np.ndarray:
    gain = dice.uniform(0.7, 1.6)
    weights = np.array([[0.3, 0.59, 0.11]], np.float32).repeat(3, 0)
    return cv2.transform(image, (1 - gain) * weights + gain * np.eye(3, dtype=np.float32))


def _tone(dice: Dice) -> np.ndarray:
    """A table (256,1,3): exposure, contrast, gamma and white balance."""
    gamma = math.exp(dice.normal(0, 0.15))
    curve = np.clip(_LEVEL * math.exp(dice.normal(0.02, 0.08)), 0, 1) ** gamma
    bend = dice.uniform(-0.25, 0.6)
    curve = curve + bend * curve * (1 - curve) * (2 * curve - 1) * 1.6
    black, white = dice.uniform(0, 0.05), dice.uniform(0.93, 1.03)
    warmth, green = dice.normal(0, 0.05), dice.normal(0, 0.02)
    gains = np.array([1 + warmth, 1 + green, 1 - warmth], np.float32)
    table = (black + (white - black) * curve)[:, None] * gains * 255
    return np.clip(table, 0, 255).astype(np.uint8)[:, None, :]


def _motion(dice: Dice, image: np.ndarray) -> np.ndarray:
    reach = max(3, round(dice.uniform(3, 9) * image.shape[0] / 224))
    kernel = np.zeros((reach, reach), np.float32)
    angle = dice.uniform(0, math.pi)
    half = (reach - 1) / 2
    tip = round(half + half * math.cos(angle)), round(half + half * math.sin(angle))
    root = round(half - half * math.cos(angle)), round(half - half * math.sin(angle))
    cv2.line(kernel, root, tip, 1.0)
    return cv2.filter2D(image, -1, kernel / kernel.sum())


def _resampled(dice: Dice, photo: np.ndarray) -> np.ndarray:
    size = photo.shape[0]
    draw = dice.uniform(0, 1)
    if draw < 0.15:
        small = round(size * dice.uniform(0.5, 0.95))
        photo = cv2.resize(photo, (small, small), interpolation=cv2.INTER_AREA)
        return cv2.resize(photo, (size, size), interpolation=cv2.INTER_LINEAR)
    if draw < 0.3:
        return cv2.GaussianBlur(photo, (0, 0), dice.uniform(0.4, 0.8) * size / 224)
    if draw < 0.75:
        soft = cv2.GaussianBlur(photo, (0, 0), 1.0)
        gain = dice.uniform(0.3, 1.3)
        return cv2.addWeighted(photo, 1 + gain, soft, -gain, 0)
    return photo


def _noisy(dice: Dice, photo: np.ndarray) -> np.ndarray:
    size = photo.shape[0]
    sigma = dice.log_uniform(0.6, 8)
    grain = _grain()
    top, left = dice.integer(0, grain.shape[0] - size), dice.integer(0, grain.shape[1] - size)
    patch = grain[top : top + size, left : left + size]
    gain = sigma / 32
    return cv2.addWeighted(photo, 1, patch, gain, -128 * gain)


_GRAIN: list[np.ndarray] = []


def _grain() -> np.ndarray:
    """Sensor noise (1024,1024,3) uint8, mean 128 and deviation 32, partly shared by channels."""
    if not _GRAIN:
        rng = np.random.default_rng(7)
        grey = rng.standard_normal((1024, 1024, 1), np.float32) * 26
        tint = rng.standard_normal((1024, 1024, 3), np.float32) * 18
        _GRAIN.append(np.clip(128 + grey + tint, 0, 255).astype(np.uint8))
    return _GRAIN[0]
