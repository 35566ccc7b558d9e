"""The one interface between the mask generator and every family of models."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import numpy as np
import torch

from amg.models.precision import Precision
from amg.ops.resample import Resampling


@dataclass(frozen=True, slots=True)
class Frame:
    """How a crop lies in the model's square input.

    `size_hw`: the crop's own size. `resized_hw`: its size in the input, from the top left corner.
    `input_hw`: the input's size, through which SAM's logits pass on their way to the crop's.
    """

    size_hw: tuple[int, int]
    resized_hw: tuple[int, int]
    input_hw: tuple[int, int]


@dataclass(frozen=True, slots=True)
class FittedImage:
    """A crop as it goes to the device: `pixels` uint8 RGB (h, w, 3), and where they come to lie."""

    pixels: np.ndarray
    frame: Frame


@dataclass(frozen=True, slots=True)
class Candidates:
    """The M masks of a batch of prompts that passed the predicted-IoU filter, prompt by prompt.

    `logits` (M, h, w) low-res; `predicted_iou` (M,) float; `prompt_index` and `level` (M,) int64:
    which of an image's prompts, and which of its masks.
    """

    logits: torch.Tensor
    predicted_iou: torch.Tensor
    prompt_index: torch.Tensor
    level: torch.Tensor

    @staticmethod
    def concatenate(parts: "Sequence[Candidates]") -> "Candidates":
        """Join one or more parts of a chunk's candidates."""
        columns = (
            torch.cat([getattr(part, column.name) for part in parts])
            for column in fields(Candidates)
        )
        return Candidates(*columns)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Which model this is: its registry name and the sha256 of its weights, for provenance.

    `generator_defaults` are the `GeneratorConfig` values that suit this model's scores, where the
    original's do not.
    """

    name: str = "custom"
    weights_sha256: str | None = None
    generator_defaults: Mapping[str, Any] = field(default_factory=dict)


def is_plain_wanted() -> bool:
    """Whether AMG_PLAIN=1 asks for the plain computations: what new models start with."""
    return os.environ.get("AMG_PLAIN", "") not in ("", "0")


class PromptableModel(Protocol):
    """What the generator needs of a model."""

    info: ModelInfo
    mask_threshold: float
    plain: bool
    """Whether to compute as the papers write it: the reference that faster ways are tested by."""
    precision: Precision

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        ...

    @property
    def bytes_per_point(self) -> int:
        """What decoding a point needs at most, from prompt to logits."""
        ...

    def fit(self, image: np.ndarray) -> FittedImage:
        """What a crop (H, W, 3) uint8 RGB of any size needs of the CPU. Safe in threads."""
        ...

    def collate(self, images: Sequence[FittedImage]) -> torch.Tensor:
        """Crops to one batch (B, 3, S, S) on the device, as `encode` takes it."""
        ...

    def encode(self, pixels: torch.Tensor) -> Iterable[Any]:
        """A batch (B, 3, S, S) to the features of each image, which only `decode` looks into."""
        ...

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
        """The candidates of single-point prompts (N, 2), in the crop's pixels, on one image.

        Kept are masks with predicted IoU above `pred_iou_thresh`; all, where that is not positive.
        They come for `points_per_batch` prompts at a time. `multimask_output`: three masks a
        prompt, not one. `use_m2m`: each is predicted again, with itself as a prompt.
        """
        ...

    def upsample(self, logits: torch.Tensor, frame: Frame) -> torch.Tensor:
        """Low-res logits (M, h, w) to the crop's own size, (M, H, W)."""
        ...

    def resampling(self, frame: Frame) -> Resampling:
        """What `upsample` does, as taps for rows and columns."""
        ...
