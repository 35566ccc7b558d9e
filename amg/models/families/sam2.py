"""SAM 2 and 2.1: the assembled model, and how images go in and masks come out.

Sources: "SAM 2: Segment Anything in Images and Videos" (2024); `sam2/modeling/sam2_base.py`,
`sam2/sam2_image_predictor.py`, `sam2/utils/transforms.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from amg.models.decoding.image_decoder import ImageDecoder
from amg.models.families.prompted_model import PromptedModel, as_kept, resize_masks, with_high_res
from amg.models.interface import EmbeddedPrompts, FittedImage, Frame, PromptBatch
from amg.models.modules.fpn_neck import ImageEncoder
from amg.models.modules.layers import MLP
from amg.models.modules.prompt_encoder import BOX_CORNERS, PromptEncoder
from amg.models.modules.sam2_mask_decoder import SAM2MaskDecoder
from amg.models.modules.two_way_transformer import TwoWayTransformer
from amg.models.precision import encoder_in, require_finite
from amg.models.tracking.memories import TrackingOptions
from amg.models.tracking.track_step import TracksObjects
from amg.ops.resample import Resampling, bilinear_taps

_IMGSZ_STEP = 32  # windows of 8 patches of 4 pixels: positions repeat with them
_PIXEL_MEAN = (0.485, 0.456, 0.406)  # of values from 0 to 1
_PIXEL_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """One image's `embedding` (C, h, w); `high_res` (C / 8, 4h, 4w) and (C / 4, 2h, 2w), or ()."""

    embedding: torch.Tensor
    high_res: tuple[torch.Tensor, ...]


class SAM2Model(PromptedModel, TracksObjects):
    """An image encoder, SAM's heads, and what a memory of past frames needs; keys as published.

    The options are those of the published model, with its defaults; those that only tracking uses
    are in `TrackingOptions`. Without a memory (`memory_attention` and `memory_encoder` None, or a
    checkpoint of the image's parts alone) it is a model of images.
    """

    mask_prompt_limit = 32.0
    optional_parts = (
        "memory_attention",
        "memory_encoder",
        "maskmem_tpos_enc",
        "no_mem_pos_enc",
        "no_obj_embed_spatial",
        "mask_downsample",
        "no_obj_ptr",
        "obj_ptr_proj",
        "obj_ptr_tpos_proj",
    )

    def __init__(
        self,
        image_encoder: ImageEncoder,
        memory_attention: nn.Module | None,
        memory_encoder: nn.Module | None,
        num_maskmem: int = 7,
        image_size: int = 512,
        backbone_stride: int = 16,
        *,
        use_high_res_features_in_sam: bool = False,
        iou_prediction_use_sigmoid: bool = False,
        use_multimask_token_for_obj_ptr: bool = False,
        pred_obj_scores: bool = False,
        pred_obj_scores_mlp: bool = False,
        fixed_no_obj_ptr: bool = False,
        soft_no_obj_ptr: bool = False,
        use_mlp_for_obj_ptr_proj: bool = False,
        no_obj_embed_spatial: bool = False,
        use_mask_input_as_output_without_sam: bool = False,
        sam_mask_decoder_extra_args: Mapping[str, Any] | None = None,
        compile_image_encoder: bool = False,
        add_all_frames_to_correct_as_cond: bool = False,
        **tracking: Any,
    ) -> None:
        super().__init__(_PIXEL_MEAN, _PIXEL_STD)
        if (memory_attention is None) != (memory_encoder is None):
            raise ValueError("memory_attention and memory_encoder: both, or neither")
        self.tracking = TrackingOptions(num_maskmem=num_maskmem, **tracking)
        self.image_encoder = image_encoder
        self.memory_attention = memory_attention
        self.memory_encoder = memory_encoder
        self.image_size = image_size
        self.backbone_stride = backbone_stride
        self.use_high_res_features_in_sam = use_high_res_features_in_sam
        self.use_mask_input_as_output_without_sam = use_mask_input_as_output_without_sam

        dim = image_encoder.neck.d_model
        self.sam_prompt_encoder = PromptEncoder(
            embed_dim=dim,
            image_embedding_size=(image_size // backbone_stride, image_size // backbone_stride),
            input_image_size=(image_size, image_size),
            mask_in_chans=16,
        )
        self.sam_mask_decoder = SAM2MaskDecoder(
            transformer_dim=dim,
            transformer=TwoWayTransformer(
                depth=2, embedding_dim=dim, num_heads=8, mlp_dim=2048, make_mlp=two_layer_mlp
            ),
            use_high_res_features=use_high_res_features_in_sam,
            iou_prediction_use_sigmoid=iou_prediction_use_sigmoid,
            pred_obj_scores=pred_obj_scores,
            pred_obj_scores_mlp=pred_obj_scores_mlp,
            use_multimask_token_for_obj_ptr=use_multimask_token_for_obj_ptr,
            **(sam_mask_decoder_extra_args or {}),
        )
        self.no_mem_embed = _embedding(1, 1, dim)
        self.fixed_no_obj_ptr = fixed_no_obj_ptr
        self.soft_no_obj_ptr = soft_no_obj_ptr
        self._add_memory_embeddings(dim, no_obj_embed_spatial)
        self._add_object_pointers(dim, use_mlp_for_obj_ptr_proj)
        # For whoever keeps a video's frames: whether one that is corrected counts as prompted.
        self.add_all_frames_to_correct_as_cond = add_all_frames_to_correct_as_cond
        if compile_image_encoder:
            self.image_encoder.compile()
        if memory_encoder is None:
            for part in self.optional_parts:
                setattr(self, part, None)

    def _add_memory_embeddings(self, dim: int, no_obj_embed_spatial: bool) -> None:
        """What is learned of a memory's place in time, and of one that is not there."""
        mem_dim = self._memory_width(dim)
        self.maskmem_tpos_enc = _embedding(self.tracking.num_maskmem, 1, 1, mem_dim)
        self.no_mem_pos_enc = _embedding(1, 1, dim)
        self.no_obj_embed_spatial = _embedding(1, mem_dim) if no_obj_embed_spatial else None

    def _add_object_pointers(self, dim: int, use_mlp: bool) -> None:
        """What makes pointers to objects out of the decoder's tokens, and places them in time."""
        has_pointers = self.tracking.use_obj_ptrs_in_encoder
        absent = has_pointers and self.sam_mask_decoder.pred_obj_scores
        if self.fixed_no_obj_ptr and not absent:
            raise ValueError(
                "fixed_no_obj_ptr=True needs pred_obj_scores=True and use_obj_ptrs_in_encoder=True"
            )
        self.mask_downsample = nn.Conv2d(1, 1, kernel_size=4, stride=4) if has_pointers else None
        self.no_obj_ptr = _embedding(1, dim) if absent else None
        projection = MLP(dim, dim, dim, 3) if use_mlp else nn.Linear(dim, dim)
        self.obj_ptr_proj = projection if has_pointers else nn.Identity()
        self.obj_ptr_tpos_proj = (
            nn.Linear(dim, self._memory_width(dim))
            if self.tracking.proj_tpos_enc_in_obj_ptrs
            else nn.Identity()
        )

    def _memory_width(self, dim: int) -> int:
        """Channels of a memory: the encoder's projection may have made it narrow."""
        projection = getattr(self.memory_encoder, "out_proj", None)
        return projection.out_channels if isinstance(projection, nn.Conv2d) else dim

    @property
    def imgsz(self) -> int:
        """Side of the square input, in pixels."""
        return self.image_size

    @property
    def embedding_hw(self) -> tuple[int, int]:
        """Sides of an image's embedding."""
        return self.sam_prompt_encoder.image_embedding_size

    def set_imgsz(self, imgsz: int | tuple[int, int]) -> None:
        """Change the side of the square input, in pixels: a multiple of 32."""
        size_hw = (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
        if size_hw[0] != size_hw[1]:
            raise ValueError(f"imgsz={imgsz}: SAM 2's input is square")
        if size_hw[0] <= 0 or size_hw[0] % _IMGSZ_STEP:
            raise ValueError(f"imgsz={imgsz} must be a positive multiple of {_IMGSZ_STEP}")
        self.image_size = size_hw[0]
        self.sam_prompt_encoder.set_imgsz(size_hw, self.backbone_stride)

    def fit(self, image: np.ndarray) -> FittedImage:
        """The pixels of (H, W, 3) uint8 RGB as they are: it is the device that resizes them."""
        own = np.array(image, order="C")  # torch takes no flipped view, and none read-only
        return FittedImage(own, self.frame_of((image.shape[0], image.shape[1])))

    def frame_of(self, size_hw: tuple[int, int]) -> Frame:
        """The crop stretched to the whole input."""
        input_hw = (self.imgsz, self.imgsz)
        return Frame(size_hw, input_hw, input_hw)

    def _normalise(self, images: Sequence[FittedImage]) -> torch.Tensor:
        """Stretched to the square input, antialiased, to about zero mean and unit deviation."""
        input_hw = (self.imgsz, self.imgsz)
        pixels = self.pixel_mean.new_empty(len(images), 3, *input_hw)
        for target, image in zip(pixels, images, strict=True):
            whole = torch.from_numpy(image.pixels).to(self.device).permute(2, 0, 1).contiguous()
            stretched = F.interpolate(
                whole.unsqueeze(0).float() / 255,
                input_hw,
                mode="bilinear",
                align_corners=False,
                antialias=True,
            )
            target.copy_((stretched[0] - self.pixel_mean) / self.pixel_std)
        return pixels

    def forward_image(self, img_batch: torch.Tensor) -> dict[str, Any]:
        """Map images (B, 3, S, S) to the features that the memory and the decoder work on.

        Gives `backbone_fpn`, maps (B, C_i, h, w) from fine to coarse, the finest two as the
        decoder's upscaling takes them; `vision_pos_enc`, positions (B, C, h, w) of each;
        `vision_features`, the coarsest map.
        """
        maps = self.image_encoder(img_batch)
        return {
            "vision_features": maps[-1],
            "vision_pos_enc": self.image_encoder.neck.positions(maps),
            "backbone_fpn": self._narrow(maps),
        }

    def _narrow(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        """Make maps of 1/4 and 1/8 as narrow as the decoder's upscaling takes them."""
        if not self.use_high_res_features_in_sam:
            return maps
        at_quarter, at_eighth, *others = maps
        decoder = self.sam_mask_decoder
        return [decoder.conv_s0(at_quarter), decoder.conv_s1(at_eighth), *others]

    def encode(self, pixels: torch.Tensor) -> list[ImageFeatures]:
        """Map (B, 3, S, S) to the features of each image: those of a video's first frame."""
        with encoder_in(self.precision, self.device):
            maps = self._narrow(self.image_encoder(pixels))
        *high_res, embedding = (as_kept(m, pixels.dtype) for m in maps)
        require_finite(embedding, self.precision)
        if self.tracking.directly_add_no_mem_embed:
            embedding = embedding + self.no_mem_embed.view(1, -1, 1, 1)
        if not self.use_high_res_features_in_sam:
            high_res = []
        return [
            ImageFeatures(embedding[i], tuple(maps[i] for maps in high_res))
            for i in range(len(pixels))
        ]

    @property
    def packed_shapes(self) -> Mapping[str, tuple[int, int, int]]:
        """Of `pack`: the embedding's and, where the decoder takes them, those of finer maps."""
        dim = self.sam_prompt_encoder.embed_dim
        shapes = with_high_res(dim, self.embedding_hw)
        return shapes if self.use_high_res_features_in_sam else {"embedding": shapes["embedding"]}

    def pack(self, features: ImageFeatures) -> dict[str, torch.Tensor]:
        """One image's features by their names."""
        finer = zip(("at_quarter", "at_eighth"), features.high_res, strict=False)
        return {"embedding": features.embedding, **dict(finer)}

    def unpack(self, tensors: Mapping[str, torch.Tensor]) -> ImageFeatures:
        """Undo `pack`."""
        embedding, *high_res = (tensors[name] for name in self.packed_shapes)
        return ImageFeatures(embedding, tuple(high_res))

    def embed_prompts(self, prompts: PromptBatch, frame: Frame) -> EmbeddedPrompts:
        """Prompts of any kind: a box as two points of its own labels, points, one that is none.

        Source: `SAM2ImagePredictor._predict`, which computes in float32 from here on: so do we.
        """
        coords, labels = [], []
        if prompts.boxes_xyxy is not None:
            coords.append(prompts.boxes_xyxy.reshape(-1, 2, 2))
            labels.append(np.tile(BOX_CORNERS, (len(prompts), 1)))
        if prompts.points_xy is not None and prompts.labels is not None:
            coords.append(prompts.points_xy)
            labels.append(prompts.labels)
        points = None
        if coords:
            at_crop = self._as_tensor(np.concatenate(coords, axis=1).astype(np.float32))
            at_input = at_crop / at_crop.new_tensor(frame.size_hw[::-1]) * self.imgsz
            points = at_input, self._as_tensor(np.concatenate(labels, axis=1))
        sparse = self.sam_prompt_encoder.sparse(points, None, len(prompts))
        return EmbeddedPrompts(sparse, self._mask_logits(prompts))

    @property
    def has_object_score(self) -> bool:
        """Whether the decoder has a token that tells if there is an object."""
        return self.sam_mask_decoder.pred_obj_scores

    def image_decoder(self, features: ImageFeatures) -> ImageDecoder:
        """What decodes prompts on one image."""
        return ImageDecoder(
            self.sam_mask_decoder,
            self.sam_prompt_encoder,
            features.embedding,
            features.high_res,
            plain=self.plain,
        )

    def upsample(self, logits: torch.Tensor, frame: Frame) -> torch.Tensor:
        """Low-res logits (M, h, w) to the crop's size, (M, H, W), in one step."""
        return resize_masks(logits, frame.size_hw)

    def resampling(self, frame: Frame) -> Resampling:
        """The same as taps: `upsample` without its arrays."""
        n_low = 4 * self.sam_prompt_encoder.image_embedding_size[0]
        rows, columns = (bilinear_taps(n_low, n_low, n_low, size) for size in frame.size_hw)
        return Resampling(rows, columns)


def two_layer_mlp(dim: int, hidden_dim: int, activation: type[nn.Module]) -> MLP:
    """A two-way block's MLP under the names of SAM 2's checkpoints."""
    return MLP(dim, hidden_dim, dim, 2, activation)


def _embedding(*shape: int) -> nn.Parameter:
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.02))
