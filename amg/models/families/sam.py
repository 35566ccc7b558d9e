"""SAM and MobileSAM: the assembled model, and how images go in and masks come out.

Sources: "Segment Anything" (2023), appendix A; `segment_anything/modeling/sam.py`,
`segment_anything/utils/transforms.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

import numpy as np
import torch
from PIL import Image
from torch import nn

from amg.models.decoding.image_decoder import ImageDecoder
from amg.models.families.prompted_model import PromptedModel, as_kept, resize_masks
from amg.models.interface import EmbeddedPrompts, FittedImage, Frame, PromptBatch
from amg.models.modules.mask_decoder import MaskDecoder
from amg.models.modules.prompt_encoder import PromptEncoder
from amg.models.precision import encoder_in, require_finite, widest_float
from amg.ops.resample import Resampling, bilinear_taps


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

    @property
    def embedding_hw(self) -> tuple[int, int]:
        """Sides of an image's embedding."""
        return self.prompt_encoder.image_embedding_size

    def set_imgsz(self, imgsz: int | tuple[int, int]) -> None:
        """Change the side of the square input, in pixels: a multiple of 16."""
        size_hw = (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
        if size_hw[0] != size_hw[1]:
            raise ValueError(f"imgsz={imgsz}: SAM's input is square")
        cast(ImageEncoder, self.image_encoder).set_imgsz(size_hw)
        self.prompt_encoder.set_imgsz(size_hw)

    def fit(self, image: np.ndarray) -> FittedImage:
        """Resize the longest side of (H, W, 3) uint8 RGB to the input's."""
        frame = self.frame_of((image.shape[0], image.shape[1]))
        return FittedImage(_resize(image, frame.resized_hw), frame)

    def _normalise(self, images: Sequence[FittedImage]) -> torch.Tensor:
        """To about zero mean and unit deviation; right and bottom are padded with zeros."""
        pixels = self.pixel_mean.new_zeros(len(images), 3, self.imgsz, self.imgsz)
        for target, image in zip(pixels, images, strict=True):
            h, w = image.frame.resized_hw
            rgb = torch.from_numpy(image.pixels).to(self.device).permute(2, 0, 1)
            target[:, :h, :w] = (rgb - self.pixel_mean) / self.pixel_std
        return pixels

    def frame_of(self, size_hw: tuple[int, int]) -> Frame:
        """The crop with its longest side brought to the input's.

        At least one pixel a side: the original rounds slivers of an image to nothing, and fails.
        """
        scale = self.imgsz / max(size_hw)
        h, w = (max(1, int(n * scale + 0.5)) for n in size_hw)
        return Frame(size_hw, (h, w), (self.imgsz, self.imgsz))

    def encode(self, pixels: torch.Tensor) -> torch.Tensor | Sequence[Any]:
        """Map (B, 3, S, S) to image embeddings (B, 256, S/16, S/16)."""
        with encoder_in(self.precision, self.device):
            embedding = as_kept(self.image_encoder(pixels), pixels.dtype)
        require_finite(embedding, self.precision)
        return embedding

    @property
    def packed_shapes(self) -> Mapping[str, tuple[int, int, int]]:
        """Of `pack`: the embedding's."""
        return {"embedding": (self.prompt_encoder.embed_dim, *self.embedding_hw)}

    def pack(self, features: Any) -> dict[str, torch.Tensor]:
        """One image's features, (256, h, w), by their name."""
        return {"embedding": features}

    def unpack(self, tensors: Mapping[str, torch.Tensor]) -> Any:
        """Undo `pack`."""
        return tensors["embedding"]

    def image_decoder(self, features: Any) -> ImageDecoder:
        """What decodes prompts on one image, features (256, h, w)."""
        return ImageDecoder(self.mask_decoder, self.prompt_encoder, features, plain=self.plain)

    def embed_prompts(self, prompts: PromptBatch, frame: Frame) -> EmbeddedPrompts:
        """Prompts of any kind: points, one that is none where there is no box, then the box.

        Source: `SamPredictor.predict`, and `SamAutomaticMaskGenerator` for what is not rounded.
        """
        (h, w), (resized_h, resized_w) = frame.size_hw, frame.resized_hw
        scale = np.array([resized_w / w, resized_h / h])
        dtype = torch.float32 if prompts.in_float32 else widest_float(self.device)
        points = boxes = None
        if prompts.points_xy is not None and prompts.labels is not None:
            coords = torch.from_numpy(prompts.points_xy * scale).to(dtype).to(self.device)
            points = coords, torch.from_numpy(prompts.labels).to(self.device)
        if prompts.boxes_xyxy is not None:
            corners = prompts.boxes_xyxy.reshape(-1, 1, 2, 2) * scale
            boxes = torch.from_numpy(corners).to(dtype).to(self.device)
        sparse = self.prompt_encoder.sparse(points, boxes, len(prompts))
        return EmbeddedPrompts(sparse, self._mask_logits(prompts))

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
