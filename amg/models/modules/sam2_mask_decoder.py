"""SAM 2's mask decoder: SAM's, with high-resolution features, an object score, and a fallback.

Sources: "SAM 2: Segment Anything in Images and Videos" (2024), appendix C;
`sam2/modeling/sam/mask_decoder.py`, whose parameter names and shapes are kept.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import nn

from amg.models.modules.layers import MLP
from amg.models.modules.mask_decoder import (
    ComputeLogits,
    DecodedTokens,
    MaskDecoder,
    compute_logits,
)

_SURE_OF_AN_OBJECT = 10.0  # the score's logit in a decoder without a token for it


class SAM2Masks(NamedTuple):
    """What the decoder gives for N prompts.

    `logits` (N, M, 4h, 4w) and `predicted_iou` (N, M), M being 3 or 1; `object_tokens`
    (N, 3 or 1, C), from which pointers to the object are made; `object_score_logits` (N, 1).
    """

    logits: torch.Tensor
    predicted_iou: torch.Tensor
    object_tokens: torch.Tensor
    object_score_logits: torch.Tensor


class SAM2MaskDecoder(MaskDecoder):
    """SAM's mask decoder with what SAM 2 adds; every addition is an option.

    `use_high_res_features`: the image's features at 1/4 and 1/8 enter the upscaling.
    `dynamic_multimask_*`: where a single mask is asked for and the first is not stable, the best
    of the others takes its place. `pred_obj_scores`: a token tells whether there is an object.
    """

    has_fast_form: ClassVar[bool] = True

    def __init__(
        self,
        *,
        transformer_dim: int,
        transformer: nn.Module,
        num_multimask_outputs: int = 3,
        activation: type[nn.Module] = nn.GELU,
        iou_head_depth: int = 3,
        iou_head_hidden_dim: int = 256,
        use_high_res_features: bool = False,
        iou_prediction_use_sigmoid: bool = False,
        dynamic_multimask_via_stability: bool = False,
        dynamic_multimask_stability_delta: float = 0.05,
        dynamic_multimask_stability_thresh: float = 0.98,
        pred_obj_scores: bool = False,
        pred_obj_scores_mlp: bool = False,
        use_multimask_token_for_obj_ptr: bool = False,
    ) -> None:
        super().__init__(
            transformer_dim=transformer_dim,
            transformer=transformer,
            num_multimask_outputs=num_multimask_outputs,
            activation=activation,
            iou_head_depth=iou_head_depth,
            iou_head_hidden_dim=iou_head_hidden_dim,
        )
        self.iou_prediction_head.sigmoid_output = iou_prediction_use_sigmoid
        self.use_high_res_features = use_high_res_features
        if use_high_res_features:
            self.conv_s0 = nn.Conv2d(transformer_dim, transformer_dim // 8, kernel_size=1)
            self.conv_s1 = nn.Conv2d(transformer_dim, transformer_dim // 4, kernel_size=1)
        self.pred_obj_scores = pred_obj_scores
        if pred_obj_scores:
            self.obj_score_token = nn.Embedding(1, transformer_dim)
            self.pred_obj_score_head = (
                MLP(transformer_dim, transformer_dim, 1, 3)
                if pred_obj_scores_mlp
                else nn.Linear(transformer_dim, 1)
            )
        self.dynamic_multimask_via_stability = dynamic_multimask_via_stability
        self.dynamic_multimask_stability_delta = dynamic_multimask_stability_delta
        self.dynamic_multimask_stability_thresh = dynamic_multimask_stability_thresh
        self.use_multimask_token_for_obj_ptr = use_multimask_token_for_obj_ptr

    def forward(
        self,
        image_embeddings: torch.Tensor,
        image_pe: torch.Tensor,
        sparse_prompt_embeddings: torch.Tensor,
        dense_prompt_embeddings: torch.Tensor,
        multimask_output: bool,
        high_res_features: Sequence[torch.Tensor] = (),
    ) -> SAM2Masks:
        """Predict the masks of N prompts, on one image or on one each.

        image_embeddings (N or 1, C, h, w), image_pe (1, C, h, w), sparse (N, T, C), dense (N or 1,
        C, h, w), high_res_features as in `upscale`.
        """
        decoded = self.attend(
            image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings
        )
        upscaled = self.upscale(decoded.pixels, high_res_features)
        predict = self.predict_many if multimask_output else self.predict_single
        logits, predicted_iou = predict(partial(compute_logits, upscaled=upscaled), decoded)
        points_to_many = multimask_output and self.use_multimask_token_for_obj_ptr
        return SAM2Masks(
            logits=logits,
            predicted_iou=predicted_iou,
            object_tokens=decoded.mask_tokens[:, slice(1, None) if points_to_many else slice(0, 1)],
            object_score_logits=predicted_iou.new_full((len(logits), 1), _SURE_OF_AN_OBJECT)
            if decoded.object_score_logits is None
            else decoded.object_score_logits,
        )

    def output_tokens(self) -> torch.Tensor:
        """SAM's, and the object score's last: attention does not ask for the order."""
        tokens = super().output_tokens()
        return torch.cat([tokens, self.obj_score_token.weight]) if self.pred_obj_scores else tokens

    def read(self, tokens: torch.Tensor, pixels: Any) -> DecodedTokens:
        """Take the answers from the transformer's tokens (N, T, C)."""
        decoded = super().read(tokens, pixels)
        if not self.pred_obj_scores:
            return decoded
        score = self.pred_obj_score_head(tokens[:, 1 + self.num_mask_tokens])
        return replace(decoded, object_score_logits=score)

    def upscale(
        self, pixels: torch.Tensor, high_res_features: Sequence[torch.Tensor] = ()
    ) -> torch.Tensor:
        """As `MaskDecoder.upscale`, high_res_features as `conv_s0` and `conv_s1` give them."""
        return super().upscale(pixels, high_res_features if self.use_high_res_features else ())

    def possible_iou(self, decoded: DecodedTokens, multimask_output: bool) -> torch.Tensor:
        """As `MaskDecoder.possible_iou`; a single mask that may be replaced may be any."""
        if multimask_output or not self._replaces_unstable:
            return super().possible_iou(decoded, multimask_output)
        return decoded.predicted_iou

    def predict_single(
        self, compute: ComputeLogits, decoded: DecodedTokens
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One mask a prompt: logits (N, 1, 4h, 4w) and predicted IoU (N, 1).

        The first; with `dynamic_multimask_via_stability`, not in training, the best of the others
        where the first is not stable.
        """
        if not self._replaces_unstable:
            return super().predict_single(compute, decoded)
        weights = self.hypernetwork_weights(decoded.mask_tokens)
        prompts = torch.arange(len(weights), device=weights.device)
        best = self.best_of_many(decoded)
        pairs = torch.stack([weights[:, 0], weights[prompts, best]], dim=1)
        first, other = compute(pairs).unbind(1)
        stable = self._is_stable(first)
        logits = torch.where(stable[:, None, None], first, other)
        chosen = torch.where(stable, 0, best)
        return logits.unsqueeze(1), decoded.predicted_iou[prompts, chosen].unsqueeze(1)

    @property
    def _replaces_unstable(self) -> bool:
        return self.dynamic_multimask_via_stability and not self.training

    def _is_stable(self, logits: torch.Tensor) -> torch.Tensor:
        """Whether masks (N, 4h, 4w) barely change when their threshold moves; empty ones do not."""
        delta = self.dynamic_multimask_stability_delta
        inner, outer = ((logits > level).sum((1, 2)) for level in (delta, -delta))
        score = torch.where(outer > 0, inner / outer, 1.0)
        return score >= self.dynamic_multimask_stability_thresh
