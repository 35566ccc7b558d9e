"""From embedded prompts on one image to candidate masks, by the plain or by the fast decoder.

Predicted IoU comes from a token alone: masks are drawn only for prompts that have one above the
threshold.
"""

from collections.abc import Callable, Iterator

import torch

from amg.models import fast_decoder
from amg.models.interface import Candidates
from amg.models.mask_decoder import MaskDecoder
from amg.models.shared_pixels import share_pixels
from amg.ops.threads import map_in_threads

MULTIMASK = slice(1, None)
"""The masks for prompts that leave doubt: all but the first."""

Draw = Callable[[torch.Tensor, float], tuple[torch.Tensor, torch.Tensor]]
"""Of sparse embeddings (N, T, C) and a threshold: the logits (K, h, w) of the masks that pass it,
prompt by prompt, and the predicted IoU (N, M) of all."""

_CACHED_PIXELS = 6272  # of all prompts that a thread decodes together, on a CPU


def decode_points(
    draw: Draw, sparse: torch.Tensor, pred_iou_thresh: float, points_per_batch: int
) -> Iterator[Candidates]:
    """The candidates of prompts (N, T, C), a batch of prompts at a time."""
    for first in range(0, len(sparse), points_per_batch):
        logits, predicted_iou = draw(sparse[first : first + points_per_batch], pred_iou_thresh)
        prompt_index, level = _passes(predicted_iou, pred_iou_thresh).nonzero(as_tuple=True)
        scores = predicted_iou[prompt_index, level]
        yield Candidates(logits, scores, first + prompt_index, level)


def bytes_per_point(size_hw: tuple[int, int], in_threads: bool) -> int:
    """What one of many prompts on (h, w) pixels needs at most, from prompt to logits.

    Threads hold few prompts' arrays at once: their logits remain, as made, joined and filtered.
    Otherwise the largest are the features that masks are drawn from, (4 h, 4 w, 32) and copies.
    """
    h, w = size_hw
    return h * w * (3 * 3 * 16 * 4 if in_threads else 12_000)


def plain_draw(
    decoder: MaskDecoder, image: torch.Tensor, positions: torch.Tensor, dense: torch.Tensor
) -> Draw:
    """Decode on one image as the papers write it. All maps are (1, C, h, w)."""

    def draw(sparse: torch.Tensor, threshold: float) -> tuple[torch.Tensor, torch.Tensor]:
        decoded = decoder.attend(image, positions, sparse, dense)
        predicted_iou = decoded.predicted_iou[:, MULTIMASK]
        passes = _passes(predicted_iou, threshold)
        drawn = passes.any(dim=1)
        upscaled = decoder.upscale(decoded.pixels[drawn])
        logits = decoder.draw(upscaled, decoded.mask_tokens[drawn])[:, MULTIMASK]
        return logits[passes[drawn]], predicted_iou

    return draw


def fast_draw(
    decoder: MaskDecoder, image: torch.Tensor, positions: torch.Tensor, dense: torch.Tensor
) -> Draw:
    """The same by `fast_decoder`; on a CPU in threads, a few prompts in each at a time."""
    shared = share_pixels(decoder, image, positions, dense)

    def draw(sparse: torch.Tensor, threshold: float) -> tuple[torch.Tensor, torch.Tensor]:
        attended = fast_decoder.attend(decoder, shared, sparse)
        predicted_iou = attended.predicted_iou[:, MULTIMASK]
        passes = _passes(predicted_iou, threshold)
        drawn = passes.any(dim=1)
        logits = fast_decoder.draw(decoder, shared, attended.select(drawn), MULTIMASK)
        return logits[passes[drawn]], predicted_iou

    def draw_in_threads(
        sparse: torch.Tensor, threshold: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        n_at_once = max(1, _CACHED_PIXELS // (shared.size_hw[0] * shared.size_hw[1]))
        parts = map_in_threads(lambda chunk: draw(chunk, threshold), sparse.split(n_at_once))
        logits, predicted_iou = (torch.cat(column) for column in zip(*parts, strict=True))
        return logits, predicted_iou

    return draw_in_threads if image.device.type == "cpu" else draw


def _passes(predicted_iou: torch.Tensor, threshold: float) -> torch.Tensor:
    """Which masks are wanted; all, where the threshold is not positive."""
    if threshold > 0:
        return predicted_iou > threshold
    return torch.ones_like(predicted_iou, dtype=torch.bool)
