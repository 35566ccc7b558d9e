"""Segment everything in an image: the generator, from the top to the bottom of its pyramid.

images -> crops -> batches of point prompts -> masks, and back: NMS in the crop, NMS over the crops.
Source: "Segment Anything" (2023), appendix B; `segment_anything/automatic_mask_generator.py` and
`sam2/automatic_mask_generator.py`, whose masks, order and scores these are.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from amg.config import GeneratorConfig
from amg.errors import ConfigError
from amg.generate.budget import allow, with_quarter
from amg.generate.crops import Crop, crop_image
from amg.generate.encoding import Fitted, encode_in_batches
from amg.generate.filters import filter_candidates
from amg.generate.full_size import compact, encode_masks
from amg.generate.kept import fit_kept
from amg.generate.mask_batch import MaskBatch
from amg.generate.points import crop_points
from amg.generate.selection import select_masks
from amg.generate.waiting import Encode, WaitingMasks
from amg.inputs.pixels import AnyImage, as_pixels
from amg.models.interface import PromptableModel
from amg.models.precision import products_in
from amg.records import Embedding, ImageResult, Mask, StageSeconds

_MOST_PREPARED_BYTES = 2**26  # of an image's crops: SAM's 21 of two layers at 1024


@dataclass(frozen=True, slots=True)
class CropTask:
    """A crop that waits for the encoder, its prompts (N, 2), and the size of its image."""

    crop: Crop
    image_hw: tuple[int, int]
    fitted: Fitted
    points_xy: np.ndarray


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """An image of `size_hw` as crops that wait for the encoder: its own pixels may go."""

    size_hw: tuple[int, int]
    tasks: tuple[CropTask, ...]

    @property
    def nbytes(self) -> int:
        """What the crops' pixels take."""
        return sum(task.fitted.nbytes for task in self.tasks)


@dataclass(slots=True)
class _ImageInProgress:
    """What the crops of one image have given so far; `candidates`, where they are to be kept."""

    masks: list[Mask] = field(default_factory=list)
    candidates: list[Mask] = field(default_factory=list)
    encode_s: float = 0.0
    masks_s: float = 0.0


class MaskGenerator:
    """Generates masks for whole images by prompting a model with a grid of points."""

    def __init__(
        self,
        model: PromptableModel,
        config: GeneratorConfig | None = None,
        *,
        heartbeat: Callable[[], None] = lambda: None,
    ) -> None:
        """Take a model and what to do with it; `heartbeat` is called at every step.

        `self.config` is the configuration in force: values that `config` does not set come from
        the model's own defaults, then from the original generator's. `self.allowance` is what
        memory allows at once. Raises ConfigError for a filter by what the model does not give.
        """
        self.model = model
        self._heartbeat = heartbeat
        defaults = {"mask_threshold": model.mask_threshold, **model.info.generator_defaults}
        self.config = (config or GeneratorConfig()).for_model(defaults)
        if self.config.object_score_thresh is not None and not model.has_object_score:
            raise ConfigError(f"object_score_thresh: {model.info.name} gives no object score")
        self.allowance = allow(self.config, model)

    def generate(self, image: AnyImage | Embedding | PreparedImage) -> ImageResult:
        """Segment everything in an image, or in what `prepare` made of it.

        image: (H, W, 3) uint8 RGB, an image of Pillow's, or a path: see `as_pixels`; or what was
        kept of an image, which is not encoded again.
        Raises ImageError for what is none of these, or cannot be read, ConfigError for an embedding
        of another model, and for crops, which it has none of.
        """
        return self.generate_batch([image])[0]

    def prepare(self, image: AnyImage | Embedding) -> np.ndarray | PreparedImage:
        """What an image, as `generate` takes it, needs of the CPU before the model sees it.

        Not needed, but safe in threads: a loader may do it while the device works on other images.
        An image whose crops would take much memory comes back as it is.

        Raises ImageError, ConfigError as `generate` does.
        """
        if isinstance(image, Embedding):
            return self._prepare_kept(image)
        pixels = as_pixels(image)
        tasks, n_bytes = [], 0
        for task in self.crop_tasks(pixels):
            tasks.append(task)
            n_bytes += task.fitted.nbytes
            if n_bytes > max(_MOST_PREPARED_BYTES, pixels.nbytes):
                return pixels
        return PreparedImage(_size_hw(pixels), tuple(tasks))

    def _prepare_kept(self, embedding: Embedding) -> PreparedImage:
        if self.config.crop_n_layers:
            raise ConfigError(
                "crop_n_layers: an embedding is of a whole image, and crops have none"
            )
        size_hw = embedding.size_hw
        (crop,) = crop_image(size_hw, 0, self.config.crop_overlap_ratio)
        fitted, points_xy = fit_kept(self.model, embedding), crop_points(crop, self.config)
        tasks = (CropTask(crop, size_hw, fitted, points_xy),) if len(points_xy) else ()
        return PreparedImage(size_hw, tasks)

    def with_smaller_batches(self) -> "MaskGenerator | None":
        """The same with a quarter of the batches, for less memory; None if they are at one."""
        smaller = with_quarter(self.config, self.allowance)
        if smaller is None:
            return None
        return MaskGenerator(self.model, smaller, heartbeat=self._heartbeat)

    @torch.inference_mode()
    def generate_batch(
        self, images: Sequence[AnyImage | Embedding | PreparedImage]
    ) -> list[ImageResult]:
        """Segment several images, of any sizes: their crops share encoder batches.

        images: as `generate` takes them. Raises as it does, before any work.
        """
        images = [self._taken(image, f"images[{index}]") for index, image in enumerate(images)]
        in_progress = [_ImageInProgress() for _ in images]
        tasks = (
            (task.fitted, (task, progress))
            for image, progress in zip(images, in_progress, strict=True)
            for task in self.crop_tasks(image)
        )
        with products_in(self.model.precision):
            batch_size = self.allowance.encoder_batch_size
            for owner, features, encode_s in encode_in_batches(self.model, tasks, batch_size):
                task, progress = owner
                progress.encode_s += encode_s
                self._process_crop(task, features, progress)
        return [
            self._finish(_size_hw(image), progress)
            for image, progress in zip(images, in_progress, strict=True)
        ]

    def _taken(
        self, image: AnyImage | Embedding | PreparedImage, name: str
    ) -> np.ndarray | PreparedImage:
        if isinstance(image, Embedding):
            return self._prepare_kept(image)
        return image if isinstance(image, PreparedImage) else as_pixels(image, name)

    def crop_tasks(self, image: np.ndarray | PreparedImage) -> Iterator[CropTask]:
        """The crops of an image, those without prompts left out."""
        if isinstance(image, PreparedImage):
            yield from image.tasks
            return
        size_hw, config = _size_hw(image), self.config
        for crop in crop_image(
            size_hw,
            config.crop_n_layers,
            config.crop_overlap_ratio,
            skip_image=config.crop_skip_image,
        ):
            points_xy = crop_points(crop, config)
            if len(points_xy):
                x0, y0, x1, y1 = crop.box_xyxy
                fitted = self.model.fit(image[y0:y1, x0:x1])
                yield CropTask(crop, size_hw, fitted, points_xy)

    def _process_crop(self, task: CropTask, features: Any, progress: _ImageInProgress) -> None:
        """All prompts on one crop; its duplicates removed; survivors encoded."""
        started = time.perf_counter()
        waiting = WaitingMasks(self._encoder(task), self.allowance.waiting_bytes)
        for masks, logits in self.good_masks(task, features):
            waiting.add(masks, compact(self.model, logits, self.config.mask_threshold))
        survivors = waiting.survivors(self.config.box_nms_thresh)
        if self.config.keep_candidates:
            every = _masks_in_image(waiting, torch.arange(len(waiting.masks)), task.crop)
            progress.candidates += every
            progress.masks += [every[i] for i in survivors.tolist()]
        else:
            progress.masks += _masks_in_image(waiting, survivors, task.crop)
        progress.masks_s += time.perf_counter() - started

    def good_masks(self, task: CropTask, features: Any) -> Iterator[tuple[MaskBatch, torch.Tensor]]:
        """What NMS chooses from: batches of masks in the crop's pixels, and their low-res logits.

        features: of the crop, as the model gives them.
        """
        config, frame = self.config, task.fitted.frame
        candidates = self.model.decode(
            features,
            frame,
            task.points_xy,
            config.pred_iou_thresh,
            self.allowance.points_per_batch,
            multimask_output=config.multimask_output,
            use_m2m=config.use_m2m,
        )
        for batch in candidates:
            self._heartbeat()
            prompts = torch.from_numpy(task.points_xy).to(batch.level.device)
            yield filter_candidates(
                batch, prompts, self.model, frame, task.crop, task.image_hw, config
            )

    def _encoder(self, task: CropTask) -> Encode:
        """What upsamples low-res logits, and encodes them in the image's frame."""
        frame, threshold = task.fitted.frame, self.config.mask_threshold
        return lambda logits: encode_masks(
            self.model, logits, frame, task.crop, task.image_hw, threshold
        )

    def _finish(self, size_hw: tuple[int, int], progress: _ImageInProgress) -> ImageResult:
        """From the masks of all crops to the image's."""
        masks = select_masks(progress.masks, size_hw, self.config, self.model.device.type)
        return ImageResult(
            size_hw,
            tuple(masks),
            StageSeconds(encode=progress.encode_s, masks=progress.masks_s),
            tuple(progress.candidates) if self.config.keep_candidates else None,
        )


def _masks_in_image(waiting: WaitingMasks, index: torch.Tensor, crop: Crop) -> list[Mask]:
    """Records of some of a crop's masks, in the image's pixels."""
    return waiting.masks.select(index).to_records(waiting.encode(index), crop)


def _size_hw(image: np.ndarray | PreparedImage) -> tuple[int, int]:
    return image.size_hw if isinstance(image, PreparedImage) else (image.shape[0], image.shape[1])
