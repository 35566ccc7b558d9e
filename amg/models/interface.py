"""The one interface between mask generator, mask predictor and every family of models."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, cast

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

    @property
    def nbytes(self) -> int:
        """What the pixels take."""
        return self.pixels.nbytes


@dataclass(frozen=True, slots=True)
class PromptBatch:
    """N prompts on one crop that are alike: what one of them lacks, all lack, and it is None.

    `points_xy` (N, P, 2) float64 and their `labels` (N, P) int64: 1 on the object, 0 off it, -1 no
    point, -10 a token of zeros, which is what Hugging Face's models pad with. `boxes_xyxy` (N, 4)
    float64. Both are in the crop's pixels. `masks` (N, 1, 4h, 4w) float32: low-res logits.
    `in_float32`: coordinates are rounded when they are the input's, as SAM's predictor does; its
    generator does not. (SAM 2 rounds them as they come, always.)
    """

    points_xy: np.ndarray | None = None
    labels: np.ndarray | None = None
    boxes_xyxy: np.ndarray | None = None
    masks: np.ndarray | None = None
    in_float32: bool = True

    def __len__(self) -> int:
        given = (self.points_xy, self.boxes_xyxy, self.masks)
        return next((len(part) for part in given if part is not None), 0)

    @staticmethod
    def of_grid(points_xy: np.ndarray) -> "PromptBatch":
        """The generator's prompts: N points (N, 2) float64, each on an object of its own."""
        labels = np.ones((len(points_xy), 1), np.int64)
        return PromptBatch(points_xy[:, None], labels, in_float32=False)


@dataclass(frozen=True, slots=True)
class EmbeddedPrompts:
    """N prompts on the device: `sparse` (N, T, C) tokens, `masks` (N, 1, 4h, 4w) logits or None."""

    sparse: torch.Tensor
    masks: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class Candidates:
    """The M masks of a batch of prompts that passed the predicted-IoU filter, prompt by prompt.

    `logits` (M, h, w) low-res; `predicted_iou` (M,) float; `prompt_index` and `level` (M,) int64:
    which of an image's prompts, and which of its masks. `object_score` (M,) float: the logit that
    there is an object at all, where a model gives one.
    """

    logits: torch.Tensor
    predicted_iou: torch.Tensor
    prompt_index: torch.Tensor
    level: torch.Tensor
    object_score: torch.Tensor | None = None

    @staticmethod
    def concatenate(parts: "Sequence[Candidates]") -> "Candidates":
        """Join one or more parts of a chunk's candidates."""
        columns = (join([getattr(part, f.name) for part in parts]) for f in fields(Candidates))
        return Candidates(*columns)


def join(parts: Sequence[torch.Tensor | None]) -> Any:
    """Tensors end to end; None where there are none, in any of the parts."""
    return None if parts[0] is None else torch.cat(cast("list[torch.Tensor]", parts))


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


class PromptDecoder(Protocol):
    """Answers prompts on one image; what they share is computed once."""

    def candidates(
        self,
        sparse: torch.Tensor,
        masks: torch.Tensor | None,
        pred_iou_thresh: float,
        multimask_output: bool,
        *,
        best_only: bool = False,
    ) -> Candidates:
        """The candidates of `EmbeddedPrompts`; filter and outputs as `PromptableModel.decode`.

        `best_only`: of the masks of a prompt that of the highest predicted IoU.
        """
        ...


class PromptableModel(Protocol):
    """What generator and predictor need of a model."""

    info: ModelInfo
    mask_threshold: float
    plain: bool
    """Whether to compute as the papers write it: the reference that faster ways are tested by."""
    precision: Precision
    fixed_batches: bool
    """Whether batches for `encode` should all have one size: a compiled encoder is made for it."""
    mask_prompt_limit: float
    """How far from zero the logits of a mask may be that comes back as a prompt."""

    @property
    def has_object_score(self) -> bool:
        """Whether candidates come with `object_score`."""
        ...

    @property
    def low_res_hw(self) -> tuple[int, int]:
        """Sides of low-res logits."""
        ...

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

    def frame_of(self, size_hw: tuple[int, int]) -> Frame:
        """How a crop of this size lies in the model's input, as `fit` puts it there."""
        ...

    def collate(self, images: Sequence[FittedImage]) -> torch.Tensor:
        """Crops to one batch (B, 3, S, S) on the device, as `encode` takes it."""
        ...

    def encode(self, pixels: torch.Tensor) -> Iterable[Any]:
        """A batch (B, 3, S, S) to the features of each image, which only the model looks into."""
        ...

    @property
    def packed_shapes(self) -> Mapping[str, tuple[int, int, int]]:
        """Names and shapes (C, h, w) of what `pack` gives: known without an image."""
        ...

    def pack(self, features: Any) -> dict[str, torch.Tensor]:
        """One image's features as named arrays (C, h, w), to be kept."""
        ...

    def unpack(self, tensors: Mapping[str, torch.Tensor]) -> Any:
        """Undo `pack`: float32 tensors on the device to features."""
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

    def embed_prompts(self, prompts: PromptBatch, frame: Frame) -> EmbeddedPrompts:
        """Prompts of any kind as a `PromptDecoder` takes them."""
        ...

    def mask_prompt(self, mask: np.ndarray, frame: Frame) -> np.ndarray:
        """A mask (H, W) bool of the crop's own size as low-res logits (1, h, w) float32."""
        ...

    def image_decoder(self, features: Any) -> PromptDecoder:
        """What decodes prompts on one image, features of `encode`."""
        ...

    def upsample(self, logits: torch.Tensor, frame: Frame) -> torch.Tensor:
        """Low-res logits (M, h, w) to the crop's own size, (M, H, W)."""
        ...

    def resampling(self, frame: Frame) -> Resampling:
        """What `upsample` does, as taps for rows and columns."""
        ...
