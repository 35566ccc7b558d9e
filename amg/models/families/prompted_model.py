"""What the families of models have in common: prompts in, candidates out, and a second look."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from amg.models.decoding.image_decoder import ImageDecoder, bytes_per_point
from amg.models.interface import (
    Candidates,
    EmbeddedPrompts,
    FittedImage,
    Frame,
    ModelInfo,
    PromptBatch,
    is_plain_wanted,
)
from amg.models.precision import Precision

_MASK_SCALE, _MASK_BIAS = 20.0, -10.0
_EVERY_ONE = 0.0  # a threshold that is not positive keeps all candidates


class PromptedModel(nn.Module, ABC):
    """A model that answers prompts on an image, and can refine its own answers."""

    mask_threshold: float = 0.0
    mask_prompt_limit: float = math.inf
    """How far from zero the logits of a mask may be that comes back as a prompt."""
    optional_parts: tuple[str, ...] = ()
    """Attributes that images do without: a checkpoint may lack them, all together."""
    pixel_mean: torch.Tensor
    pixel_std: torch.Tensor

    def __init__(self, pixel_mean: Sequence[float], pixel_std: Sequence[float]) -> None:
        super().__init__()
        self.info = ModelInfo()
        self.plain = is_plain_wanted()
        self.precision: Precision = "float32"
        self.fixed_batches = False
        # Not part of published checkpoints.
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.pixel_mean.device

    @abstractmethod
    def fit(self, image: np.ndarray) -> FittedImage:
        """What a crop (H, W, 3) uint8 RGB of any size needs of the CPU. Safe in threads."""

    def collate(self, images: Sequence[FittedImage]) -> torch.Tensor:
        """Crops to one batch (B, 3, S, S) on the device, as `encode` takes it.

        Raises ValueError for what was fitted to an input of another size.
        """
        for image in images:
            if image.frame.input_hw != (self.imgsz, self.imgsz):
                h, w = image.frame.input_hw
                raise ValueError(f"an image was fitted to {h} x {w} px, the input is {self.imgsz}")
        return self._normalise(images)

    @abstractmethod
    def _normalise(self, images: Sequence[FittedImage]) -> torch.Tensor:
        """Crops of the input's size to (B, 3, S, S)."""

    @property
    @abstractmethod
    def imgsz(self) -> int:
        """Side of the square input, in pixels."""

    def preprocess(self, images: Sequence[np.ndarray]) -> tuple[torch.Tensor, list[Frame]]:
        """Crops (H, W, 3) uint8 RGB of any sizes to one batch (B, 3, S, S), and their frames."""
        fitted = [self.fit(image) for image in images]
        return self.collate(fitted), [image.frame for image in fitted]

    def decode(
        self,
        features: Any,
        frame: Frame,
        points_xy: np.ndarray,
        pred_iou_thresh: float,
        points_per_batch: int,
        *,
        multimask_output: bool = True,
        use_m2m: bool = False,
    ) -> Iterator[Candidates]:
        """Masks for each of N points on one image, less those of low predicted IoU.

        features: one image's, of `encode`; points_xy (N, 2) float64 in the crop's pixels.
        Three masks a point, or one. `use_m2m` predicts each of them again, one for one, with itself
        as a mask prompt: predicted IoU and the threshold are then the second mask's.
        """
        decoder = self.image_decoder(features)
        for first in range(0, len(points_xy), points_per_batch):
            some_xy = points_xy[first : first + points_per_batch]
            batch = self.embed_prompts(PromptBatch.of_grid(some_xy), frame).sparse
            threshold = _EVERY_ONE if use_m2m else pred_iou_thresh
            found = decoder.candidates(batch, None, threshold, multimask_output)
            if use_m2m:
                parts = [
                    self._refine(decoder, batch, found, some, pred_iou_thresh)
                    for some in torch.arange(len(found.level), device=self.device).split(len(batch))
                ]
                found = Candidates.concatenate(parts)
            yield replace(found, prompt_index=first + found.prompt_index)

    def _refine(
        self,
        decoder: ImageDecoder,
        sparse: torch.Tensor,
        drafts: Candidates,
        some: torch.Tensor,
        pred_iou_thresh: float,
    ) -> Candidates:
        """Predict the drafts of an index (K,) again, each one's own mask as a prompt.

        Source: `SAM2AutomaticMaskGenerator.refine_with_m2m`.
        """
        limit = self.mask_prompt_limit
        masks = drafts.logits[some].clamp(-limit, limit).unsqueeze(1)
        prompts = sparse[drafts.prompt_index[some]]
        refined = decoder.candidates(prompts, masks, pred_iou_thresh, False)
        kept = some[refined.prompt_index]
        return Candidates(
            logits=refined.logits,
            predicted_iou=refined.predicted_iou,
            prompt_index=drafts.prompt_index[kept],
            level=drafts.level[kept],
            object_score=refined.object_score,
        )

    @property
    @abstractmethod
    def embedding_hw(self) -> tuple[int, int]:
        """Sides of an image's embedding."""

    @property
    def bytes_per_point(self) -> int:
        """What decoding a point needs at most, from prompt to logits."""
        return bytes_per_point(self.embedding_hw, on_cpu=self.device.type == "cpu")

    @property
    def low_res_hw(self) -> tuple[int, int]:
        """Sides of low-res logits, four to each of the embedding's cells."""
        h, w = self.embedding_hw
        return 4 * h, 4 * w

    @property
    def has_object_score(self) -> bool:
        """Whether candidates come with a score that there is an object at all."""
        return False

    @abstractmethod
    def embed_prompts(self, prompts: PromptBatch, frame: Frame) -> EmbeddedPrompts:
        """Prompts of any kind, in the crop's pixels, as `image_decoder` takes them."""

    def _mask_logits(self, prompts: PromptBatch) -> torch.Tensor | None:
        """The masks (N, 1, 4h, 4w) of prompts, on the device."""
        masks = prompts.masks
        return None if masks is None else self._as_tensor(masks.astype(np.float32, copy=False))

    def _as_tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(self.device)

    def mask_prompt(self, mask: np.ndarray, frame: Frame) -> np.ndarray:
        """A mask (H, W) bool of the crop's own size as a prompt: logits (1, h, w) float32.

        The share of each cell that the mask covers, from -10 for none to 10 for all: what SAM 2
        makes of masks that are given (`sam2_base.py`, _use_mask_as_output).
        """
        h, w = frame.resized_hw
        resized = F.interpolate(
            torch.from_numpy(mask)[None, None].float(), (h, w), mode="bilinear", antialias=True
        )
        input_h, input_w = frame.input_hw
        at_input = F.pad(resized, (0, input_w - w, 0, input_h - h))
        covered = F.adaptive_avg_pool2d(at_input, self.low_res_hw)
        return (covered * _MASK_SCALE + _MASK_BIAS)[0].numpy()

    @abstractmethod
    def image_decoder(self, features: Any) -> ImageDecoder:
        """What decodes prompts on one image, features of `encode`."""


def as_kept(maps: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """An encoder's maps as they come back from where they are kept: in memory too.

    Products of the same numbers in another order of memory differ by their rounding.
    """
    return maps.to(dtype).contiguous()


def with_high_res(dim: int, size_hw: tuple[int, int]) -> dict[str, tuple[int, int, int]]:
    """Names and shapes of an embedding (dim, h, w) and the finer maps that upscaling takes."""
    h, w = size_hw
    return {
        "embedding": (dim, h, w),
        "at_quarter": (dim // 8, 4 * h, 4 * w),
        "at_eighth": (dim // 4, 2 * h, 2 * w),
    }


def resize_masks(logits: torch.Tensor, size_hw: tuple[int, int]) -> torch.Tensor:
    """(M, h, w) to (M, H, W), bilinear."""
    resized = F.interpolate(logits.unsqueeze(1), size_hw, mode="bilinear", align_corners=False)
    return resized.squeeze(1)
