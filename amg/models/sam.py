"""SAM and MobileSAM: the assembled model, and how images go in and masks come out.

Sources: "Segment Anything" (2023), appendix A; `segment_anything/modeling/sam.py`,
`segment_anything/utils/transforms.py`.
"""

from collections.abc import Sequence
from typing import Protocol, cast

import numpy as np
import torch
from PIL import Image
from torch import nn

from amg.models import fast_decoder
from amg.models.interface import Candidates, Frame
from amg.models.mask_decoder import DecodedTokens, MaskDecoder
from amg.models.prompt_encoder import PromptEncoder
from amg.models.prompted_model import PromptedModel, embed_foreground, passes, resize_masks
from amg.ops.resample import Resampling, bilinear_taps

_CACHE_BYTES = 8 * 2**20  # of pixels in flight: several such arrays are alive at once


class ImageEncoder(Protocol):
    """What SAM needs of an image encoder, ViT or TinyViT."""

    img_size: int

    def set_imgsz(self, imgsz: tuple[int, int]) -> None:
        """Take inputs of (height, width) pixels."""
        ...

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, 3, S, S) to (B, 256, S/16, S/16)."""
        ...


class SAMModel(PromptedModel):
    """An image encoder, a prompt encoder and a mask decoder; keys as in published checkpoints."""

    def __init__(
        self,
        image_encoder: nn.Module,
        prompt_encoder: PromptEncoder,
        mask_decoder: MaskDecoder,
        pixel_mean: Sequence[float] = (123.675, 116.28, 103.53),
        pixel_std: Sequence[float] = (58.395, 57.12, 57.375),
    ) -> None:
        super().__init__(pixel_mean, pixel_std)
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder

    @property
    def imgsz(self) -> int:
        """Side of the square input, in pixels."""
        return self.prompt_encoder.input_image_size[0]

    def set_imgsz(self, imgsz: int | tuple[int, int]) -> None:
        """Change the side of the square input, in pixels: a multiple of 16."""
        size_hw = (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
        if size_hw[0] != size_hw[1]:
            raise ValueError(f"imgsz={imgsz}: SAM's input is square")
        cast(ImageEncoder, self.image_encoder).set_imgsz(size_hw)
        self.prompt_encoder.set_imgsz(size_hw)

    def preprocess(self, images: Sequence[np.ndarray]) -> tuple[torch.Tensor, list[Frame]]:
        """Resize the longest side to the input's, normalise, pad right and bottom with zeros.

        images: (H, W, 3) uint8 RGB, of any sizes. Gives (B, 3, S, S) and a frame for each.
        """
        pixels = self.pixel_mean.new_zeros(len(images), 3, self.imgsz, self.imgsz)
        frames = [self._frame((image.shape[0], image.shape[1])) for image in images]
        for target, image, frame in zip(pixels, images, frames, strict=True):
            h, w = frame.resized_hw
            target[:, :h, :w] = self._normalise(_resize(image, frame.resized_hw))
        return pixels, frames

    def _normalise(self, image: np.ndarray) -> torch.Tensor:
        """(H, W, 3) uint8 to (3, H, W) float of about zero mean and unit deviation."""
        pixels = torch.from_numpy(image).to(self.device).permute(2, 0, 1)
        return (pixels - self.pixel_mean) / self.pixel_std

    def _frame(self, size_hw: tuple[int, int]) -> Frame:
        """The crop with its longest side brought to the input's.

        At least one pixel a side: the original rounds slivers of an image to nothing, and fails.
        """
        scale = self.imgsz / max(size_hw)
        h, w = (max(1, int(n * scale + 0.5)) for n in size_hw)
        return Frame(size_hw, (h, w), (self.imgsz, self.imgsz))

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map (B, 3, S, S) to image embeddings (B, 256, S/16, S/16)."""
        return self.image_encoder(pixels)

    def draw_candidates(
        self,
        features: torch.Tensor,
        sparse: torch.Tensor,
        masks: torch.Tensor | None,
        pred_iou_thresh: float,
        multimask_output: bool,
    ) -> Candidates:
        """The candidates of N prompts on one image, features (256, h, w).

        Masks are drawn only for the prompts that have one above the threshold.
        """
        wanted = slice(1, None) if multimask_output else slice(0, 1)
        image, positions = features.unsqueeze(0), self.prompt_encoder.get_dense_pe()
        dense = self.prompt_encoder.dense(masks)
        decoder = self.mask_decoder
        if masks is not None or self.plain:
            decoded = decoder.attend(image, positions, sparse, dense)
            parts = [self._draw(decoded, wanted, pred_iou_thresh)]
        else:
            shared = fast_decoder.share_pixels(decoder, image, positions, dense)
            parts = [
                self._draw(fast_decoder.attend(decoder, shared, chunk), wanted, pred_iou_thresh)
                for chunk in sparse.split(self._prompts_at_once(features, len(sparse)))
            ]
        logits, predicted_iou, kept = (torch.cat(column) for column in zip(*parts, strict=True))
        prompt_index, level = kept.nonzero(as_tuple=True)
        return Candidates(logits, predicted_iou, prompt_index, level)

    def _prompts_at_once(self, features: torch.Tensor, n_prompts: int) -> int:
        """How many prompts to decode together: on a CPU, what its cache holds the pixels of."""
        if features.device.type != "cpu":
            return n_prompts
        return max(1, _CACHE_BYTES // (features.numel() * features.element_size()))

    def _draw(
        self, decoded: DecodedTokens, wanted: slice, pred_iou_thresh: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits (K, h, w) and predicted IoU (K,) of what passes; which does, (N, M).

        Of each prompt's masks, those in the slice `wanted`.
        """
        decoder = self.mask_decoder
        predicted_iou = decoded.predicted_iou[:, wanted]
        kept = passes(predicted_iou, pred_iou_thresh)
        drawn = kept.any(dim=1)
        if self.plain:
            pixels, tokens = decoded.pixels[drawn], decoded.mask_tokens[drawn]
            logits = decoder.draw(decoder.upscale(pixels), tokens)[:, wanted]
        else:
            logits = fast_decoder.draw(decoder, decoded, drawn, wanted)
        return logits[kept[drawn]], predicted_iou[kept], kept

    def embed_points(self, points_xy: np.ndarray, frame: Frame) -> torch.Tensor:
        """Sparse embeddings (N, 2, C) of N points in the crop's pixels."""
        (h, w), (resized_h, resized_w) = frame.size_hw, frame.resized_hw
        scaled = points_xy * np.array([resized_w / w, resized_h / h])
        return embed_foreground(self.prompt_encoder, torch.from_numpy(scaled).to(self.device))

    def upsample(self, logits: torch.Tensor, frame: Frame) -> torch.Tensor:
        """Low-res logits (M, h, w) to the input's size, without its padding, to the crop's size.

        Gives (M, H, W). Source: `Sam.postprocess_masks`.
        """
        h, w = frame.resized_hw
        at_input = resize_masks(logits, frame.input_hw)[:, :h, :w]
        return resize_masks(at_input, frame.size_hw)

    def resampling(self, frame: Frame) -> Resampling:
        """The same as taps: `upsample` without its arrays."""
        n_low = 4 * self.prompt_encoder.image_embedding_size[0]
        rows, columns = (
            bilinear_taps(n_low, *sides)
            for sides in zip(frame.input_hw, frame.resized_hw, frame.size_hw, strict=True)
        )
        return Resampling(rows, columns)


def _resize(image: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Antialiased bilinear resizing by Pillow, as the original: other libraries' pixels differ."""
    height, width = size_hw
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
