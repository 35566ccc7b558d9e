"""SAM with finer features in the upscaling, as SAM 2 has them."""

from collections.abc import Mapping, Sequence

import torch

from amg.models.decoding.image_decoder import ImageDecoder
from amg.models.families.prompted_model import as_kept, with_high_res
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
        return FineFeatures(*(as_kept(maps, pixels.dtype) for maps in features))

    @property
    def packed_shapes(self) -> Mapping[str, tuple[int, int, int]]:
        """Of `pack`: the fields of `FineFeatures`."""
        return with_high_res(self.prompt_encoder.embed_dim, self.embedding_hw)

    def pack(self, features: FineFeatures) -> dict[str, torch.Tensor]:
        """One image's features by their names."""
        return features._asdict()

    def unpack(self, tensors: Mapping[str, torch.Tensor]) -> FineFeatures:
        """Undo `pack`."""
        return FineFeatures(**tensors)

    def image_decoder(self, features: FineFeatures) -> ImageDecoder:
        """What decodes prompts on one image, an item of `encode`."""
        high_res = (features.at_quarter, features.at_eighth)
        return ImageDecoder(
            self.mask_decoder, self.prompt_encoder, features.embedding, high_res, plain=self.plain
        )
