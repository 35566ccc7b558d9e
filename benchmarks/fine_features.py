"""The built-in model's finer features in decoders of others, which have no place for them.

Where a transposed convolution reaches their size they are added to what it gives, as SAM 2's own
decoder does. They are those of the image that was encoded last.
"""

import torch
from torch import nn

from amg.models.modules.fine_tiny_vit import FineTinyViT


class EmbeddingOnly(nn.Module):
    """Gives the embedding, and keeps the finer features of a single image: at 1/8, at 1/4."""

    def __init__(self, encoder: FineTinyViT) -> None:
        super().__init__()
        self.encoder = encoder
        self.img_size = encoder.img_size
        self.kept: tuple[torch.Tensor, torch.Tensor] | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (1, 3, S, S) to (1, 256, S/16, S/16)."""
        assert len(x) == 1
        features = self.encoder(x)
        self.kept = features.at_eighth, features.at_quarter
        return features.embedding

    def added_to(self, first: nn.Module, second: nn.Module) -> tuple[nn.Module, nn.Module]:
        """The two convolutions of an upscaling, with the finer features added."""
        return _Sum(first, self, 0), _Sum(second, self, 1)


class _Sum(nn.Module):
    """What a layer gives, plus what an encoder has kept."""

    def __init__(self, layer: nn.Module, encoder: EmbeddingOnly, index: int) -> None:
        super().__init__()
        self.layer = layer
        self.index = index
        self._encoder = [encoder]  # in a list: it is no part of this one

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = self._encoder[0].kept
        assert kept is not None
        return self.layer(x) + kept[self.index]
