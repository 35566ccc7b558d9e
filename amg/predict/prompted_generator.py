"""Masks for the prompts of many images, as runs need them: `MaskGenerator`'s sister."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from amg.config import GeneratorConfig
from amg.generate.budget import allow, with_quarter
from amg.generate.encoding import Fitted, encode_in_batches
from amg.generate.kept import fit_kept
from amg.inputs.pixels import AnyImage, as_pixels
from amg.models.interface import PromptableModel
from amg.models.precision import products_in
from amg.predict.masks import predict_masks
from amg.predict.prompts import check_prompts
from amg.records import Embedding, ImageResult, Mask, Prompt, StageSeconds


@dataclass(frozen=True, slots=True)
class PreparedPrompts:
    """An image that waits for the encoder, and what will be asked of it: its pixels may go."""

    fitted: Fitted
    prompts: tuple[Prompt, ...]

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the image, in pixels."""
        return self.fitted.frame.size_hw

    @property
    def nbytes(self) -> int:
        """What the pixels take, or the embedding."""
        return self.fitted.nbytes


class PromptedGenerator:
    """Generates masks for images of which each has prompts of its own."""

    def __init__(
        self,
        model: PromptableModel,
        config: GeneratorConfig | None = None,
        *,
        multimask_output: bool = False,
        heartbeat: Callable[[], None] = lambda: None,
    ) -> None:
        """Take a model; of the configuration memory, mask threshold and stability offset count.

        multimask_output: all three masks a prompt, not the one of the highest predicted IoU.
        `heartbeat` is called at every step.
        """
        self.model = model
        self.multimask_output = multimask_output
        self._heartbeat = heartbeat
        self.config = (config or GeneratorConfig()).for_model(
            {"mask_threshold": model.mask_threshold, **model.info.generator_defaults}
        )
        self.allowance = allow(self.config, model)

    def prepare(self, image: AnyImage | Embedding, prompts: Sequence[Prompt]) -> PreparedPrompts:
        """What an image needs of the CPU before the model sees it, and its prompts, in its pixels.

        image: as `MaskGenerator.generate` takes it, or what was kept of one.

        Safe in threads: a loader may do it while the device works on other images. Raises
        ImageError as `MaskGenerator.generate` does, ValueError for a prompt that cannot be asked,
        ConfigError for an embedding of another model.
        """
        if isinstance(image, Embedding):
            check_prompts(prompts, image.size_hw)
            return PreparedPrompts(fit_kept(self.model, image), tuple(prompts))
        pixels = as_pixels(image)
        check_prompts(prompts, pixels.shape[:2])
        return PreparedPrompts(self.model.fit(pixels), tuple(prompts))

    def with_smaller_batches(self) -> "PromptedGenerator | None":
        """The same with a quarter of the batches, for less memory; None if they are at one."""
        smaller = with_quarter(self.config, self.allowance)
        if smaller is None:
            return None
        return PromptedGenerator(
            self.model,
            smaller,
            multimask_output=self.multimask_output,
            heartbeat=self._heartbeat,
        )

    @torch.inference_mode()
    def generate_batch(self, images: Sequence[PreparedPrompts]) -> list[ImageResult]:
        """The masks of several images, which share encoder batches; each image's in its prompts'
        order. An image without prompts is not encoded.
        """
        results = [ImageResult(image.size_hw, ()) for image in images]
        with products_in(self.model.precision):
            for index, features, encode_s in encode_in_batches(
                self.model, _asked(images), self.allowance.encoder_batch_size
            ):
                started = time.perf_counter()
                masks = self._masks(images[index], features)
                seconds = StageSeconds(encode_s, time.perf_counter() - started)
                results[index] = ImageResult(images[index].size_hw, masks, seconds)
        return results

    def _masks(self, image: PreparedPrompts, features: object) -> tuple[Mask, ...]:
        answers = predict_masks(
            self.model,
            self.model.image_decoder(features),
            image.fitted.frame,
            image.prompts,
            self.config,
            self.allowance.points_per_batch,
            multimask_output=self.multimask_output,
            heartbeat=self._heartbeat,
        )
        return tuple(mask for answer in answers for mask in answer)


def _asked(images: Sequence[PreparedPrompts]) -> Iterator[tuple[Fitted, int]]:
    """The images that have prompts, with their indices."""
    return ((image.fitted, i) for i, image in enumerate(images) if image.prompts)
