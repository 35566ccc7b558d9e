"""SAM with finer features in the upscaling, as SAM 2 has them."""

from collections.abc import Sequence

import torch

from amg.models.decoding.image_decoder import ImageDecoder
from amg.models.families.sam import SAMModel
from amg.models.modules.fine_encoder import FineFeatures
from amg.models.precision import encoder_in, require_finite


class FineSAMModel(SAMModel):
    """`SAMModel` whose image encoder gives `FineFeatures`, which enter the mask decoder."""

    def encode(self, pixels: torch.Tensor) -> Sequence[FineFeatures]:
        """Map (B, 3, S, S) to the features of each image, maps without a batch: (C, ., .)."""
        return [FineFeatures(*maps) for maps in zip(*self.encode_batch(pixels), strict=True)]

    def encode_batch(self, pixels: torch.Tensor) -> FineFeatures:
        """Map (B, 3, S, S) to the features of all images together."""
        with encoder_in(self.precision, self.device):
            features: FineFeatures = self.image_encoder(pixels)
        require_finite(features.embedding, self.precision)
        return FineFeatures(*(maps.to(pixels.dtype) for maps in features))

    def image_decoder(self, features: FineFeatures) -> ImageDecoder:
        """What decodes prompts on one image, an item of `encode`."""
        high_res = (features.at_quarter, features.at_eighth)
        return ImageDecoder(
            self.mask_decoder, self.prompt_encoder, features.embedding, high_res, plain=self.plain
        )
