"""Encode an image once, ask for masks as often as you like.

The names are those of `SamPredictor` (`segment_anything/predictor.py`) and `SAM2ImagePredictor`
(`sam2/sam2_image_predictor.py`), and so are the masks.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from amg.config import GeneratorConfig
from amg.generate.budget import allow
from amg.generate.encoding import Fitted, encode_in_batches
from amg.generate.kept import fit_kept, keep
from amg.inputs.pixels import AnyImage, as_pixels
from amg.models.interface import Frame, PromptableModel, PromptBatch, PromptDecoder
from amg.models.precision import products_in
from amg.predict.masks import predict_masks
from amg.predict.prompts import check_boxes, check_points, check_prompts
from amg.records import Embedding, EmbeddingDtype, Mask, Prompt, check_dtype

Prediction = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Masks (C, H, W), predicted IoU (C,) float32 and low-res logits (C, h, w) float32."""


@dataclass(frozen=True)
class EncodedImage:
    """An image as its model remembers it: what `encode` gave, and how it lay in the input."""

    model: PromptableModel
    features: Any
    frame: Frame

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the image, in pixels."""
        return self.frame.size_hw

    @cached_property
    def decoder(self) -> PromptDecoder:
        """What answers prompts; what these share is computed at the first and kept."""
        return self.model.image_decoder(self.features)


class MaskPredictor:
    """Predicts masks for points, boxes and masks on one image, or on several."""

    def __init__(self, model: PromptableModel, config: GeneratorConfig | None = None) -> None:
        """Take a model; of the configuration memory, mask threshold and stability offset count."""
        self.model = model
        self.config = (config or GeneratorConfig()).for_model(
            {"mask_threshold": model.mask_threshold, **model.info.generator_defaults}
        )
        self._allowance = allow(self.config, model)
        self.images: tuple[EncodedImage, ...] = ()

    def set_image(self, image: AnyImage) -> None:
        """Encode an image: an array (H, W, 3) uint8 RGB, an image of Pillow's, a path or a URL.

        Raises ImageError for what is none of these, or cannot be read.
        """
        self.set_images([image])

    @torch.no_grad()
    def set_images(self, images: Sequence[AnyImage]) -> None:
        """Encode several images, as `set_image` takes them; they share encoder batches."""
        model = self.model
        self._set(model.fit(as_pixels(image, f"images[{i}]")) for i, image in enumerate(images))

    def set_embedding(self, embedding: Embedding) -> None:
        """Take what was kept of an image, in place of the image: a row's of `amg embed`, say.

        Raises ConfigError for one of other weights, or of another size of the model's input.
        """
        self.set_embeddings([embedding])

    @torch.no_grad()
    def set_embeddings(self, embeddings: Sequence[Embedding]) -> None:
        """Take what was kept of several images, as `set_embedding` takes it."""
        self._set(fit_kept(self.model, embedding) for embedding in embeddings)

    def embedding(
        self, dtype: EmbeddingDtype = "float16", *, image: int | None = None
    ) -> Embedding:
        """What to keep of an image, for `set_embedding`; masks are equal with float32.

        image: which, where several are set. Raises ConfigError for another dtype, ValueError for
        values too large for float16, RuntimeError without an image.
        """
        check_dtype(dtype)
        encoded = self._image(image)
        return keep(self.model, encoded.features, encoded.size_hw, dtype)

    def _set(self, fitted: Iterable[Fitted]) -> None:
        self.reset_image()
        model = self.model
        with products_in(model.precision):
            self.images = tuple(
                EncodedImage(model, features, frame)
                for frame, features, _ in encode_in_batches(
                    model,
                    ((image, image.frame) for image in fitted),
                    self._allowance.encoder_batch_size,
                )
            )

    def reset_image(self) -> None:
        """Forget all images."""
        self.images = ()

    @property
    def features(self) -> Any:
        """What the model's `encode` gave for the image; for several, a list. None without one."""
        every = [image.features for image in self.images]
        return every if len(every) > 1 else next(iter(every), None)

    @torch.no_grad()
    def predict(
        self,
        point_coords: np.ndarray | None = None,
        point_labels: np.ndarray | None = None,
        box: np.ndarray | None = None,
        mask_input: np.ndarray | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        *,
        image: int | None = None,
    ) -> Prediction:
        """The masks of one prompt, in the image's pixels.

        point_coords (P, 2) x y, with point_labels (P,): 1 on the object, 0 off it. box (4,) XYXY.
        mask_input (1, h, w): low-res logits, such as this gave before. Each may come for N prompts
        that are alike, with an axis in front, which the answers then have too, unless N is 1.
        `multimask_output`: three masks, best for a single click, or one. `return_logits`: masks as
        float32 logits, not bool. image: which, where several are set.

        Raises ValueError that says what cannot be asked, RuntimeError without an image.
        """
        encoded = self._image(image)
        prompts = self._to_batch(encoded, point_coords, point_labels, box, mask_input)
        with products_in(self.model.precision):
            embedded = self.model.embed_prompts(prompts, encoded.frame)
            found = encoded.decoder.candidates(
                embedded.sparse, embedded.masks, 0.0, multimask_output
            )
            full = self.model.upsample(found.logits, encoded.frame).float()
        masks = full if return_logits else full > self.config.mask_threshold
        limit = self.model.mask_prompt_limit
        parts = masks, found.predicted_iou.float(), found.logits.float().clamp(-limit, limit)
        by_prompt = (part.unflatten(0, (len(prompts), -1)) for part in parts)
        masks, ious, low_res = (
            (part[0] if len(part) == 1 else part).cpu().numpy() for part in by_prompt
        )
        return masks, ious, low_res

    @torch.no_grad()
    def predict_batch(
        self,
        prompts: Sequence[Prompt],
        *,
        multimask_output: bool = False,
        image: int | None = None,
    ) -> list[tuple[Mask, ...]]:
        """For each prompt its masks as records, with run lengths in the image's pixels.

        One mask each, of three that of the highest predicted IoU; with `multimask_output` all
        three. Prompts may be of any kinds, with unequal numbers of points: each gets the masks that
        it gets alone. image: which, where several are set.

        Raises ValueError that says which prompt cannot be asked, RuntimeError without an image.
        """
        encoded = self._image(image)
        check_prompts(prompts, encoded.size_hw)
        with products_in(self.model.precision):
            return predict_masks(
                self.model,
                encoded.decoder,
                encoded.frame,
                prompts,
                self.config,
                self._allowance.points_per_batch,
                multimask_output=multimask_output,
            )

    def _image(self, index: int | None) -> EncodedImage:
        if not self.images:
            raise RuntimeError("no image is set: call set_image first")
        if index is None and len(self.images) > 1:
            raise ValueError(f"image: which of the {len(self.images)} that are set?")
        return self.images[index or 0]

    def _to_batch(
        self,
        encoded: EncodedImage,
        point_coords: np.ndarray | None,
        point_labels: np.ndarray | None,
        box: np.ndarray | None,
        mask_input: np.ndarray | None,
    ) -> PromptBatch:
        """Arrays with or without an axis of prompts to those with one, checked."""
        points_xy = _with_prompts("point_coords", point_coords, (None, 2))
        labels = _with_prompts("point_labels", point_labels, (None,))
        boxes_xyxy = _with_prompts("box", box, (4,))
        masks = _with_prompts("mask_input", mask_input, (1, *self.model.low_res_hw))
        if (points_xy is None) != (labels is None):
            raise ValueError("point_coords, point_labels: both, or neither")
        if points_xy is not None and labels is not None:
            labels = labels.astype(np.int64)
            check_points(points_xy, labels, encoded.size_hw)
        if boxes_xyxy is not None:
            check_boxes(boxes_xyxy, encoded.size_hw)
        if masks is not None and not np.isfinite(masks).all():
            raise ValueError("mask_input: a logit is no number")
        counts = {len(p) for p in (points_xy, boxes_xyxy, masks) if p is not None}
        if len(counts) != 1:
            raise ValueError(
                f"points, boxes and masks of {sorted(counts)} prompts: as many of each"
                if counts
                else "nothing is asked: give points, a box or a mask"
            )
        return PromptBatch(points_xy, labels, boxes_xyxy, masks)


def _with_prompts(
    name: str, values: np.ndarray | None, shape: tuple[int | None, ...]
) -> np.ndarray | None:
    """An array of `shape`, None being any, or of one axis more, with that axis; in float64."""
    if values is None:
        return None
    array = np.asarray(values, np.float64)
    if array.ndim == len(shape):
        array = array[None]
    wanted = zip(array.shape[1:], shape, strict=False)
    fits = array.ndim == len(shape) + 1 and all(want in (None, got) for got, want in wanted)
    if not fits or not array.size:
        sides = ", ".join("P" if side is None else str(side) for side in shape)
        raise ValueError(f"{name}: expected ({sides}), got {np.shape(values)}")
    return array
