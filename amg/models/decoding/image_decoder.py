"""From embedded prompts on one image to candidate masks, by the plain or by the fast decoder.

Predicted IoU comes from a token alone: masks are computed only for prompts that may have one above
the threshold.
"""

import math
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from itertools import pairwise

import torch

from amg.models.decoding import fast_decoder
from amg.models.decoding.shared_pixels import SharedPixels, can_share, share_pixels
from amg.models.interface import Candidates
from amg.models.modules.mask_decoder import (
    ComputeLogits,
    DecodedTokens,
    MaskDecoder,
    compute_logits,
)
from amg.models.modules.prompt_encoder import PromptEncoder
from amg.ops.threads import map_in_threads

# Of all prompts that are decoded together on a CPU: what a thread's cache holds the fast decoder's
# arrays of, with the tokens of a point; what is 800 MB of the plain decoder's.
_CACHED_PIXELS = 8192
_PLAIN_PIXELS = 65536
_N_OUTPUTS, _POINT_TOKENS = 5, 2
# The fast decoder's products grow with the square of a prompt's tokens, the plain one's hardly.
# With 32 it is three times faster, on a CPU, for three times the arithmetic.
_MOST_FAST_TOKENS = 32


def bytes_per_point(size_hw: tuple[int, int], on_cpu: bool) -> int:
    """What one of many prompts on (h, w) pixels needs at most, from prompt to logits.

    On a CPU few prompts are decoded at once: their logits remain, as made, joined and filtered.
    Elsewhere the largest are the features that masks are computed from, (4 h, 4 w, 32) and copies.
    """
    h, w = size_hw
    return h * w * (3 * 3 * 16 * 4 if on_cpu else 12_000)


class ImageDecoder:
    """Decodes prompts on one image; what they share is computed once, when it is first needed."""

    def __init__(
        self,
        decoder: MaskDecoder,
        prompt_encoder: PromptEncoder,
        embedding: torch.Tensor,
        high_res: Sequence[torch.Tensor] = (),
        *,
        plain: bool,
    ) -> None:
        """Take an image's embedding (C, h, w), and its finer features as SAM 2's decoder does."""
        self._decoder = decoder
        self._prompt_encoder = prompt_encoder
        self._image = embedding.unsqueeze(0)
        self._high_res = [maps.unsqueeze(0) for maps in high_res]
        self._plain = plain or not can_share(decoder)

    def candidates(
        self,
        sparse: torch.Tensor,
        masks: torch.Tensor | None,
        pred_iou_thresh: float,
        multimask_output: bool,
        *,
        best_only: bool = False,
    ) -> Candidates:
        """The candidates of N prompts: sparse (N, T, C) and, it may be, masks (N, 1, 4h, 4w).

        `best_only`: of three masks a prompt that of the highest predicted IoU.
        Prompts with masks share no pixels: they are decoded the plain way. So are prompts of many
        tokens, for which it is the shorter.
        """
        n_tokens = sparse.shape[1]
        is_plain = self._plain or masks is not None or n_tokens > _MOST_FAST_TOKENS
        # What prompts share is computed here, not by each thread.
        decode = self._decode_plainly if is_plain else partial(self._decode_fast, self._shared)

        def work(some: slice) -> Candidates:
            decoded, upscale = decode(sparse[some], None if masks is None else masks[some])
            return self._predict(decoded, upscale, pred_iou_thresh, multimask_output, best_only)

        cached = _CACHED_PIXELS * (_N_OUTPUTS + _POINT_TOKENS) // (_N_OUTPUTS + n_tokens)
        chunks = self._chunks(len(sparse), _PLAIN_PIXELS if is_plain else cached)
        parts = [work(chunk) for chunk in chunks] if is_plain else map_in_threads(work, chunks)
        for chunk, part in zip(chunks, parts, strict=True):
            part.prompt_index.add_(chunk.start)
        return Candidates.concatenate(parts)

    def _chunks(self, n_prompts: int, most_pixels: int) -> list[slice]:
        """Which prompts at a time; all of them, but for a CPU, whose threads get equal shares."""
        n_chunks = 1
        if self._image.device.type == "cpu":
            h, w = self._image.shape[2:]
            n_threads = torch.get_num_threads()
            n_least = math.ceil(n_prompts * h * w / most_pixels)
            n_chunks = min(n_prompts, math.ceil(n_least / n_threads) * n_threads)
        edges = [n_prompts * i // n_chunks for i in range(n_chunks + 1)]
        return [slice(*pair) for pair in pairwise(edges)]

    def _decode_plainly(
        self, sparse: torch.Tensor, masks: torch.Tensor | None
    ) -> tuple[DecodedTokens, Callable[[DecodedTokens], ComputeLogits]]:
        decoder, prompt_encoder = self._decoder, self._prompt_encoder
        decoded = decoder.attend(
            self._image, prompt_encoder.get_dense_pe(), sparse, prompt_encoder.dense(masks)
        )

        def upscale(some: DecodedTokens) -> ComputeLogits:
            return partial(compute_logits, upscaled=decoder.upscale(some.pixels, self._high_res))

        return decoded, upscale

    def _decode_fast(
        self, shared: SharedPixels, sparse: torch.Tensor, masks: torch.Tensor | None
    ) -> tuple[DecodedTokens, Callable[[DecodedTokens], ComputeLogits]]:
        assert masks is None
        decoder = self._decoder
        decoded = fast_decoder.attend(decoder, shared, sparse)

        def upscale(some: DecodedTokens) -> ComputeLogits:
            return partial(fast_decoder.compute_logits, decoder, shared, some.pixels)

        return decoded, upscale

    @cached_property
    def _shared(self) -> SharedPixels:
        prompt_encoder = self._prompt_encoder
        positions, dense = prompt_encoder.get_dense_pe(), prompt_encoder.no_mask_dense()
        return share_pixels(self._decoder, self._image, positions, dense, self._high_res)

    def _predict(
        self,
        decoded: DecodedTokens,
        upscale: Callable[[DecodedTokens], ComputeLogits],
        threshold: float,
        multimask_output: bool,
        best_only: bool,
    ) -> Candidates:
        """Compute the masks that may pass, and keep those that do."""
        decoder = self._decoder
        possible = decoder.possible_iou(decoded, multimask_output)
        may_pass = _passes(possible, threshold).any(dim=1)
        some = decoded.select(may_pass)
        many = decoder.predict_best if best_only else decoder.predict_many
        predict = many if multimask_output else decoder.predict_single
        logits, predicted_iou = predict(upscale(some), some)
        kept = _passes(predicted_iou, threshold)
        prompt, level = kept.nonzero(as_tuple=True)
        if multimask_output and best_only:
            level = decoder.best_of_many(some)[prompt] - 1
        score = some.object_score_logits
        return Candidates(
            logits=logits[kept],
            predicted_iou=predicted_iou[kept],
            prompt_index=may_pass.nonzero().squeeze(1)[prompt],
            level=level,
            object_score=None if score is None else score[prompt, 0],
        )


def _passes(predicted_iou: torch.Tensor, threshold: float) -> torch.Tensor:
    """Which predicted IoUs are above the threshold; all, where that is not positive."""
    if threshold > 0:
        return predicted_iou > threshold
    return torch.ones_like(predicted_iou, dtype=torch.bool)
