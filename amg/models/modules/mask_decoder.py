"""SAM's mask decoder: an image embedding and prompts to masks with predicted IoU.

Sources: "Segment Anything" (2023), appendix A; `segment_anything/modeling/mask_decoder.py`.
The predicted IoU comes from a token alone, so `attend` and `upscale` are steps of their own:
a caller can drop poor prompts between them, before the expensive part.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn

from amg.models.modules.layers import MLP, LayerNorm2d

ComputeLogits = Callable[[torch.Tensor], torch.Tensor]
"""From hypernetwork weights (N, M, C / 8), one set a mask, to the masks' logits (N, M, 4h, 4w)."""


@dataclass(frozen=True, slots=True)
class DecodedTokens:
    """What the transformer knows of N prompts, before any mask is computed.

    `pixels` (N, C, h, w), or what the fast decoder has in their place; `mask_tokens` (N, M, C) and
    `predicted_iou` (N, M) have one entry for each mask. `object_score_logits` (N, 1) say whether
    there is an object, where the decoder has a token for it.
    """

    pixels: Any
    mask_tokens: torch.Tensor
    predicted_iou: torch.Tensor
    object_score_logits: torch.Tensor | None = None

    def select(self, prompts: torch.Tensor) -> "DecodedTokens":
        """Take the prompts of a bool mask (N,)."""
        if prompts.all():
            return self
        score = self.object_score_logits
        return DecodedTokens(
            pixels=self.pixels[prompts],
            mask_tokens=self.mask_tokens[prompts],
            predicted_iou=self.predicted_iou[prompts],
            object_score_logits=None if score is None else score[prompts],
        )


class MaskDecoder(nn.Module):
    """A two-way transformer, an upscaling by 4, and one hypernetwork for each mask."""

    has_fast_form: ClassVar[bool] = True
    """Whether `amg.models.decoding.fast_decoder` gives the same. Each class declares it for itself:
    one that inherits may have changed what the fast form does not look at."""

    def __init__(
        self,
        *,
        transformer_dim: int,
        transformer: nn.Module,
        num_multimask_outputs: int = 3,
        activation: type[nn.Module] = nn.GELU,
        iou_head_depth: int = 3,
        iou_head_hidden_dim: int = 256,
    ) -> None:
        super().__init__()
        self.transformer_dim = transformer_dim
        self.transformer = transformer
        # The first mask is for prompts that leave no doubt, the others for ambiguous ones.
        self.num_mask_tokens = num_multimask_outputs + 1
        self.iou_token = nn.Embedding(1, transformer_dim)
        self.mask_tokens = nn.Embedding(self.num_mask_tokens, transformer_dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(transformer_dim, transformer_dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(transformer_dim // 4),
            activation(),
            nn.ConvTranspose2d(transformer_dim // 4, transformer_dim // 8, kernel_size=2, stride=2),
            activation(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            MLP(transformer_dim, transformer_dim, transformer_dim // 8, 3)
            for _ in range(self.num_mask_tokens)
        )
        self.iou_prediction_head = MLP(
            transformer_dim, iou_head_hidden_dim, self.num_mask_tokens, iou_head_depth
        )

    def forward(
        self,
        image_embeddings: torch.Tensor,
        image_pe: torch.Tensor,
        sparse_prompt_embeddings: torch.Tensor,
        dense_prompt_embeddings: torch.Tensor,
        multimask_output: bool,
    ) -> tuple[torch.Tensor, ...]:
        """Predict the masks of N prompts on one image.

        image_embeddings and image_pe (1, C, h, w), sparse (N, T, C), dense (N or 1, C, h, w).
        Gives logits (N, M, 4h, 4w) and predicted IoU (N, M): three masks, or the single one.
        """
        decoded = self.attend(
            image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings
        )
        compute = partial(compute_logits, upscaled=self.upscale(decoded.pixels))
        return (self.predict_many if multimask_output else self.predict_single)(compute, decoded)

    def attend(
        self,
        image_embeddings: torch.Tensor,
        image_pe: torch.Tensor,
        sparse_prompt_embeddings: torch.Tensor,
        dense_prompt_embeddings: torch.Tensor,
    ) -> DecodedTokens:
        """Run the transformer; shapes as in `forward`, with all M masks."""
        output_tokens = self.output_tokens().expand(len(sparse_prompt_embeddings), -1, -1)
        tokens = torch.cat([output_tokens, sparse_prompt_embeddings], dim=1)

        tokens, pixels = self.transformer(
            image_embeddings + dense_prompt_embeddings, image_pe, tokens
        )
        return self.read(tokens, pixels.transpose(1, 2).unflatten(2, image_embeddings.shape[-2:]))

    def output_tokens(self) -> torch.Tensor:
        """What is learned of the answers, before the prompts: the IoU's token, then the masks'."""
        return torch.cat([self.iou_token.weight, self.mask_tokens.weight])

    def read(self, tokens: torch.Tensor, pixels: Any) -> DecodedTokens:
        """Take the answers from the transformer's tokens (N, T, C)."""
        return DecodedTokens(
            pixels=pixels,
            mask_tokens=tokens[:, 1 : 1 + self.num_mask_tokens],
            predicted_iou=self.iou_prediction_head(tokens[:, 0]),
        )

    def upscale(
        self, pixels: torch.Tensor, high_res_features: Sequence[torch.Tensor] = ()
    ) -> torch.Tensor:
        """Map (N, C, h, w) to the features that masks are computed from, (N, C / 8, 4h, 4w).

        high_res_features: none in SAM; elsewhere the image's, at (N or 1, C / 8, 4h, 4w) and
        (N or 1, C / 4, 2h, 2w), which are added where their size is reached.
        """
        if not high_res_features:
            return self.output_upscaling(pixels)
        at_quarter, at_eighth = high_res_features
        first, norm, first_activation, second, second_activation = self.output_upscaling
        x = first_activation(norm(first(pixels) + at_eighth))
        return second_activation(second(x) + at_quarter)

    def possible_iou(self, decoded: DecodedTokens, multimask_output: bool) -> torch.Tensor:
        """The predicted IoUs (N, K) of masks that `predict_many` or `predict_single` may give."""
        return decoded.predicted_iou[:, 1:] if multimask_output else decoded.predicted_iou[:, :1]

    def predict_many(
        self, compute: ComputeLogits, decoded: DecodedTokens
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The masks for a prompt that leaves doubt: logits (N, 3, 4h, 4w), predicted IoU (N, 3)."""
        weights = self.hypernetwork_weights(decoded.mask_tokens)
        return compute(weights[:, 1:]), decoded.predicted_iou[:, 1:]

    def predict_best(
        self, compute: ComputeLogits, decoded: DecodedTokens
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The best of `predict_many`: logits (N, 1, 4h, 4w), predicted IoU (N, 1)."""
        weights = self.hypernetwork_weights(decoded.mask_tokens)
        prompts = torch.arange(len(weights), device=weights.device)
        best = self.best_of_many(decoded)
        logits = compute(weights[prompts, best].unsqueeze(1))
        return logits, decoded.predicted_iou[prompts, best].unsqueeze(1)

    def best_of_many(self, decoded: DecodedTokens) -> torch.Tensor:
        """Which mask but the first has the highest predicted IoU, (N,)."""
        return decoded.predicted_iou[:, 1:].argmax(dim=1) + 1

    def predict_single(
        self, compute: ComputeLogits, decoded: DecodedTokens
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The mask for a prompt that leaves none: logits (N, 1, 4h, 4w), predicted IoU (N, 1)."""
        weights = self.hypernetwork_weights(decoded.mask_tokens)
        return compute(weights[:, :1]), decoded.predicted_iou[:, :1]

    def predict_all(self, upscaled: torch.Tensor, mask_tokens: torch.Tensor) -> torch.Tensor:
        """Map features (N, C / 8, 4h, 4w) and mask tokens (N, M, C) to logits (N, M, 4h, 4w)."""
        return compute_logits(self.hypernetwork_weights(mask_tokens), upscaled)

    def hypernetwork_weights(self, mask_tokens: torch.Tensor) -> torch.Tensor:
        """Map mask tokens (N, M, C) to a linear classifier of features for each, (N, M, C / 8)."""
        mlps = zip(self.output_hypernetworks_mlps, mask_tokens.unbind(1), strict=True)
        return torch.stack([mlp(token) for mlp, token in mlps], dim=1)


def compute_logits(weights: torch.Tensor, upscaled: torch.Tensor) -> torch.Tensor:
    """Products of hypernetwork weights (N, M, C / 8) with upscaled features (N, C / 8, 4h, 4w).

    Gives (N, M, 4h, 4w).
    """
    return (weights @ upscaled.flatten(2)).unflatten(2, upscaled.shape[-2:])
