"""SAM and MobileSAM: the assembled model, and how images go in and masks come out.

Sources: "Segment Anything" (2023), appendix A; `segment_anything/modeling/sam.py`,
`segment_anything/utils/transforms.py`.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from amg.models.decoding import bytes_per_point, decode_points, fast_draw, plain_draw
from amg.models.interface import Candidates, Frame, ModelInfo, is_plain_wanted
from amg.models.mask_decoder import MaskDecoder
from amg.models.precision import Precision, encoder_in
from amg.models.prompt_encoder import PromptEncoder
from amg.ops.resample import Resampling, bilinear_taps

_FOREGROUND = 1


class ImageEncoder(Protocol):
    """What SAM needs of an image encoder, ViT or TinyViT."""

    img_size: int

    def set_imgsz(self, imgsz: tuple[int, int]) -> None:
        """Take inputs of (height, width) pixels."""
        ...

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, 3, S, S) to (B, 256, S/16, S/16)."""
        ...


class SAMModel(nn.Module):
    """An image encoder, a prompt encoder and a mask decoder; keys as in published checkpoints."""

    mask_threshold: float = 0.0
    pixel_mean: torch.Tensor
    pixel_std: torch.Tensor

    def __init__(
        self,
        image_encoder: nn.Module,
        prompt_encoder: PromptEncoder,
        mask_decoder: MaskDecoder,
        pixel_mean: Sequence[float] = (123.675, 116.28, 103.53),
        pixel_std: Sequence[float] = (58.395, 57.12, 57.375),
    ) -> None:
        super().__init__()
        self.info = ModelInfo()
        self.plain = is_plain_wanted()
        self.precision: Precision = "float32"
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        # Not part of published checkpoints.
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    @property
    def imgsz(self) -> int:
        """Side of the square input, in pixels."""
        return self.prompt_encoder.input_image_size[0]

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.pixel_mean.device

    @property
    def bytes_per_point(self) -> int:
        """What decoding a point needs at most, from prompt to logits."""
        in_threads = not self.plain and self.device.type == "cpu"
        return bytes_per_point(self.prompt_encoder.image_embedding_size, in_threads)

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
        with encoder_in(self.precision, self.device):
            return self.image_encoder(pixels).to(pixels.dtype)

    def decode(
        self,
        features: torch.Tensor,
        frame: Frame,
        points_xy: np.ndarray,
        pred_iou_thresh: float,
        points_per_batch: int,
    ) -> Iterator[Candidates]:
        """Three masks for each of N points on one image, less those of low predicted IoU.

        features (256, h, w); points_xy (N, 2) float64 in the crop's pixels.
        """
        sparse = self._embed_points(points_xy, frame)
        choose = plain_draw if self.plain else fast_draw
        draw = choose(
            self.mask_decoder,
            features.unsqueeze(0),
            self.prompt_encoder.get_dense_pe(),
            self.prompt_encoder.no_mask_dense(),
        )
        return decode_points(draw, sparse, pred_iou_thresh, points_per_batch)

    def _embed_points(self, points_xy: np.ndarray, frame: Frame) -> torch.Tensor:
        """Sparse embeddings (N, 2, C) of N points in the crop's pixels."""
        (h, w), (resized_h, resized_w) = frame.size_hw, frame.resized_hw
        scaled = points_xy * np.array([resized_w / w, resized_h / h])
        coords = torch.from_numpy(scaled).to(self.device).unsqueeze(1)
        labels = torch.full(coords.shape[:2], _FOREGROUND, device=self.device)
        sparse, _ = self.prompt_encoder((coords, labels), None, None)
        return sparse

    def upsample(self, logits: torch.Tensor, frame: Frame) -> torch.Tensor:
        """Low-res logits (M, h, w) to the input's size, without its padding, to the crop's size.

        Gives (M, H, W). Source: `Sam.postprocess_masks`.
        """
        h, w = frame.resized_hw
        at_input = _bilinear(logits, frame.input_hw)[:, :h, :w]
        return _bilinear(at_input, frame.size_hw)

    def resampling(self, frame: Frame) -> Resampling:
        """The same as taps: `upsample` without its arrays."""
        n_low = 4 * self.prompt_encoder.image_embedding_size[0]
        rows, columns = (
            bilinear_taps(n_low, *sides)
            for sides in zip(frame.input_hw, frame.resized_hw, frame.size_hw, strict=True)
        )
        return Resampling(rows, columns)


def _bilinear(maps: torch.Tensor, size_hw: tuple[int, int]) -> torch.Tensor:
    resized = F.interpolate(maps.unsqueeze(1), size_hw, mode="bilinear", align_corners=False)
    return resized.squeeze(1)


def _resize(image: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Antialiased bilinear resizing by Pillow, as the original: other libraries' pixels differ."""
    height, width = size_hw
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
