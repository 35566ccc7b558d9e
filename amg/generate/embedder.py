"""Embeddings of many images, as runs need them: `MaskGenerator`'s sister that asks nothing."""

from collections.abc import Callable, Sequence

import torch

from amg.config import GeneratorConfig
from amg.generate.budget import allow, with_quarter
from amg.generate.encoding import encode_in_batches
from amg.generate.kept import keep
from amg.inputs.pixels import AnyImage, as_pixels
from amg.models.interface import FittedImage, PromptableModel
from amg.models.precision import products_in
from amg.records import EmbeddingDtype, ImageResult, StageSeconds, check_dtype


class Embedder:
    """Makes embeddings of whole images, to be kept."""

    def __init__(
        self,
        model: PromptableModel,
        config: GeneratorConfig | None = None,
        *,
        dtype: EmbeddingDtype = "float16",
        heartbeat: Callable[[], None] = lambda: None,
    ) -> None:
        """Take a model; of the configuration `encoder_batch_size` counts.

        dtype: what arrays are kept in. `heartbeat` is called at every step. Raises ConfigError for
        another dtype.
        """
        check_dtype(dtype)
        self.model = model
        self.dtype: EmbeddingDtype = dtype
        self._heartbeat = heartbeat
        self.config = config or GeneratorConfig()
        self.allowance = allow(self.config, model)

    def prepare(self, image: AnyImage) -> FittedImage:
        """What an image needs of the CPU before the model sees it. Safe in threads.

        Raises ImageError as `MaskGenerator.generate` does.
        """
        return self.model.fit(as_pixels(image))

    def with_smaller_batches(self) -> "Embedder | None":
        """The same with a quarter of the batches, for less memory; None if they are at one."""
        if self.allowance.encoder_batch_size == 1:
            return None
        smaller = with_quarter(self.config, self.allowance)
        return Embedder(self.model, smaller, dtype=self.dtype, heartbeat=self._heartbeat)

    @torch.inference_mode()
    def generate_batch(self, images: Sequence[AnyImage | FittedImage]) -> list[ImageResult]:
        """Results without masks, with the embedding of each image.

        Raises ImageError as `prepare`, ValueError for what float16 cannot hold.
        """
        fitted = (i if isinstance(i, FittedImage) else self.prepare(i) for i in images)
        results = []
        with products_in(self.model.precision):
            for size_hw, features, encode_s in encode_in_batches(
                self.model,
                ((image, image.frame.size_hw) for image in fitted),
                self.allowance.encoder_batch_size,
            ):
                self._heartbeat()
                embedding = keep(self.model, features, size_hw, self.dtype)
                seconds = StageSeconds(encode=encode_s)
                results.append(ImageResult(size_hw, (), seconds, embedding=embedding))
        return results
