"""Generators that need no model, for runs of which only the running is tested.

They must be importable where workers live, and so be in a module of their own. What an image does
to its worker is in its top left pixel.
"""

import ctypes
import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from amg.errors import ConfigError
from amg.ops import rle
from amg.records import Embedding, ImageResult, Mask

KILL, HANG, RAISE, FULL, STUCK = (250, 1, 1), (250, 2, 2), (250, 3, 3), (250, 4, 4), (250, 5, 5)
SLEEP_VARIABLE = "AMG_TEST_SLEEP_S"
GATE_VARIABLE = "AMG_TEST_GATE"
"""`N:FILE`: a worker does N images, and the next when there is a FILE."""
START_VARIABLE = "AMG_TEST_START"
"""What becomes of a worker's start: it is refused, or finds a bug."""
REFUSED, BROKEN = "refused", "broken"
STUCK_VARIABLE = "AMG_TEST_STUCK"
"""The file that says that a worker is about to be stuck."""


class StubGenerator:
    """One mask an image: the pixels brighter than their mean."""

    def __init__(self, heartbeat):
        self.heartbeat = heartbeat
        self.sleep_s = float(os.environ.get(SLEEP_VARIABLE, "0"))
        n_free, _, gate = os.environ.get(GATE_VARIABLE, "").partition(":")
        self.n_free, self.gate = int(n_free or 0), Path(gate)

    def prepare(self, image):
        return _pixels(image)

    def generate_batch(self, images):
        return [self._one(image) for image in images]

    def _one(self, image):
        self.heartbeat()
        time.sleep(self.sleep_s)
        self._wait_at_the_gate()
        _harm(image)
        grey = image.mean(axis=2)
        return ImageResult(grey.shape, (_mask_of(grey > grey.mean()),))

    def _wait_at_the_gate(self):
        self.n_free -= 1
        while self.n_free < 0 and not self.gate.exists():
            time.sleep(0.01)
            self.heartbeat()

    def with_smaller_batches(self):
        return None


class PromptedStub(StubGenerator):
    """One mask a prompt: the inside of its box, else the pixel of its first point."""

    def __init__(self, heartbeat, n_masks=1):
        super().__init__(heartbeat)
        self.n_masks = n_masks

    def prepare(self, image, prompts):
        return AskedImage(_pixels(image), tuple(prompts))

    def _one(self, asked):
        self.heartbeat()
        time.sleep(self.sleep_s)
        self._wait_at_the_gate()
        _harm(asked.image)
        masks = []
        for prompt in asked.prompts:
            bits = np.zeros(asked.image.shape[:2], bool)
            x0, y0, x1, y1 = prompt.box_xyxy or (*prompt.points_xy[0], *prompt.points_xy[0])
            bits[max(0, round(y0)) : max(1, round(y1)), max(0, round(x0)) : max(1, round(x1))] = 1
            mask = replace(_mask_of(bits), point_xy=None, prompt=prompt, object_score=1.5)
            masks += [replace(mask, level=i) for i in range(self.n_masks)]
        return ImageResult(asked.image.shape[:2], tuple(masks))


class EmbeddingStub(StubGenerator):
    """What it keeps of an image are its pixels, and it is not harmed by them."""

    def __init__(self, heartbeat, dtype):
        super().__init__(heartbeat)
        self.dtype = dtype

    def _one(self, image):
        self.heartbeat()
        kept = np.ascontiguousarray(image.transpose(2, 0, 1), self.dtype)
        return ImageResult(
            image.shape[:2], (), embedding=Embedding(image.shape[:2], {"pixels": kept})
        )


def _pixels(image):
    if not isinstance(image, Embedding):
        return image
    return image.arrays["pixels"].transpose(1, 2, 0).astype(np.uint8)


@dataclass(frozen=True)
class AskedImage:
    image: np.ndarray
    prompts: tuple

    @property
    def nbytes(self):
        return self.image.nbytes


def _harm(image):
    """Do to this process what the image says."""
    first = tuple(int(v) for v in image[0, 0])
    if first == KILL:
        os.kill(os.getpid(), signal.SIGKILL)
    if first == HANG:
        time.sleep(1000)
    if first == STUCK:
        Path(os.environ[STUCK_VARIABLE]).touch()
        # In native code that does not let go of Python's lock: no thread runs any more.
        ctypes.PyDLL(None).sleep(1000)
    if first == RAISE:
        raise RuntimeError("a bug that this image finds")
    if first == FULL:
        raise MemoryError("no more")


def _mask_of(bits):
    (encoded,) = rle.encode_masks(bits[None])
    height, width = bits.shape
    x, y, w, h = rle.pixel_box_xywh(encoded)
    return Mask(
        rle=encoded,
        area=rle.area(encoded),
        bbox_xywh=(x, y, max(0.0, w - 1), max(0.0, h - 1)),
        predicted_iou=0.5,
        stability_score=0.75,
        point_xy=(width / 2, height / 2),
        crop_box_xywh=(0, 0, width, height),
        crop_layer=0,
        level=1,
    )


def make_stub(config, heartbeat):
    """The stub as workers build it."""
    _start()
    return StubGenerator(heartbeat)


def make_prompted_stub(config, heartbeat):
    """The stub of runs from prompts."""
    _start()
    return PromptedStub(heartbeat, 3 if config.run.multimask else 1)


def make_embedding_stub(config, heartbeat):
    """The stub of runs of embeddings."""
    _start()
    return EmbeddingStub(heartbeat, "float16")


def _start():
    how = os.environ.get(START_VARIABLE)
    if how == REFUSED:
        raise ConfigError("this worker is refused")
    if how == BROKEN:
        raise RuntimeError("a bug that this start finds,\nin two lines")


def save_image(path, seed, top_left=None, size_hw=(24, 32)):
    """A small picture of its own; `top_left` says what it does to a worker."""
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 240, (*size_hw, 3), dtype=np.uint8)
    if top_left is not None:
        pixels[0, 0] = top_left
    Image.fromarray(pixels).save(path)
