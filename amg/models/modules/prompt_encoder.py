"""SAM's prompt encoder: points, boxes and masks to embeddings.

Sources: "Segment Anything" (2023), appendix A; `segment_anything/modeling/prompt_encoder.py`.
Coordinates are (x, y) in pixels of the model's input.
"""

import math

import torch
from torch import nn

from amg.models.modules.layers import LayerNorm2d

PADDING_LABEL = -1  # of what is not a point
ZERO_LABEL = -10  # of what Hugging Face's models pad with: a token of zeros
BOX_CORNERS = (2, 3)  # which of the point embeddings mark a box's first and second corner


class PositionEmbeddingRandom(nn.Module):
    """Random Fourier features of positions in the unit square, 2 * num_pos_feats channels."""

    positional_encoding_gaussian_matrix: torch.Tensor

    def __init__(self, num_pos_feats: int = 64, scale: float | None = None) -> None:
        super().__init__()
        scale = scale if scale is not None and scale > 0 else 1.0
        self.register_buffer(
            "positional_encoding_gaussian_matrix", scale * torch.randn(2, num_pos_feats)
        )

    def encode(self, points_norm: torch.Tensor) -> torch.Tensor:
        """Map points (..., 2) in [0, 1], in any float type, to features (..., C)."""
        matrix = self.positional_encoding_gaussian_matrix
        # The original divides float64 coordinates and rounds here: so do we, to match it.
        angles = 2 * math.pi * ((2 * points_norm.to(matrix.dtype) - 1) @ matrix)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def forward(self, size: tuple[int, int]) -> torch.Tensor:
        """The features of every cell centre of an (h, w) grid: (C, h, w)."""
        h, w = size
        like = self.positional_encoding_gaussian_matrix
        y = (torch.arange(h, device=like.device, dtype=like.dtype) + 0.5) / h
        x = (torch.arange(w, device=like.device, dtype=like.dtype) + 0.5) / w
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        return self.encode(torch.stack([grid_x, grid_y], dim=-1)).permute(2, 0, 1)


class PromptEncoder(nn.Module):
    """Prompts of N objects to sparse (N, n_tokens, C) and dense (N, C, h, w) embeddings."""

    def __init__(
        self,
        embed_dim: int,
        image_embedding_size: tuple[int, int],
        input_image_size: tuple[int, int],
        mask_in_chans: int,
        activation: type[nn.Module] = nn.GELU,
    ) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.image_embedding_size = image_embedding_size
        self.input_image_size = input_image_size
        self.pe_layer = PositionEmbeddingRandom(embed_dim // 2)
        # One embedding for each point label: background, object, and a box's two corners.
        self.num_point_embeddings = 4
        self.point_embeddings = nn.ModuleList(
            nn.Embedding(1, embed_dim) for _ in range(self.num_point_embeddings)
        )
        self.not_a_point_embed = nn.Embedding(1, embed_dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_in_chans // 4, kernel_size=2, stride=2),
            LayerNorm2d(mask_in_chans // 4),
            activation(),
            nn.Conv2d(mask_in_chans // 4, mask_in_chans, kernel_size=2, stride=2),
            LayerNorm2d(mask_in_chans),
            activation(),
            nn.Conv2d(mask_in_chans, embed_dim, kernel_size=1),
        )
        self.no_mask_embed = nn.Embedding(1, embed_dim)

    @property
    def mask_input_size(self) -> tuple[int, int]:
        """Sides of a mask that comes as a prompt."""
        h, w = self.image_embedding_size
        return 4 * h, 4 * w

    def set_imgsz(self, imgsz: tuple[int, int], patch_size: int = 16) -> None:
        """Take prompts for inputs of `imgsz`, (height, width) in pixels."""
        self.input_image_size = imgsz
        self.image_embedding_size = (imgsz[0] // patch_size, imgsz[1] // patch_size)

    def get_dense_pe(self) -> torch.Tensor:
        """The positions of the image embedding's cells, (1, C, h, w)."""
        return self.pe_layer(self.image_embedding_size).unsqueeze(0)

    def forward(
        self,
        points: tuple[torch.Tensor, torch.Tensor] | None,
        boxes: torch.Tensor | None,
        masks: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Embed prompts; what is absent is None.

        points: coordinates (N, P, 2) and labels (N, P): 1 object, 0 background, -1 padding, -10
        a token of zeros, 2 and 3 a box's corners, which SAM 2 gives as points.
        boxes: (N, M, 4) XYXY, or as corners (N, M, 2, 2), or (N, 4).
        masks: logits (N, 1, 4h, 4w).
        Gives sparse (N, P + 2M, C), with one padding point more where there is no box,
        and dense (N, C, h, w).
        """
        given = (None if points is None else points[0], boxes, masks)
        n_prompts = next((len(part) for part in given if part is not None), 1)
        dense = self.dense(masks)
        if masks is None:
            dense = dense.expand(n_prompts, -1, -1, -1)
        return self.sparse(points, boxes, n_prompts), dense

    def sparse(
        self,
        points: tuple[torch.Tensor, torch.Tensor] | None,
        boxes: torch.Tensor | None,
        n_prompts: int,
    ) -> torch.Tensor:
        """The sparse embeddings of `forward`: (N, 0, C) for prompts without points and boxes."""
        sparse: list[torch.Tensor] = []
        if points is not None:
            coords, labels = points
            if boxes is None:
                coords = torch.cat([coords, coords.new_full((len(coords), 1, 2), -0.5)], dim=1)
                labels = torch.cat(
                    [labels, labels.new_full((len(labels), 1), PADDING_LABEL)], dim=1
                )
            sparse.append(self.embed_points(coords, labels))
        if boxes is not None:
            sparse.append(self._embed_boxes(boxes))
        no_tokens = self.no_mask_embed.weight.new_zeros(n_prompts, 0, self.embed_dim)
        return torch.cat([no_tokens, *sparse], dim=1)

    def dense(self, masks: torch.Tensor | None) -> torch.Tensor:
        """Embed masks (N, 1, 4h, 4w) as (N, C, h, w), or none as (1, C, h, w) for all prompts."""
        return self.no_mask_dense() if masks is None else self.mask_downscaling(masks)

    def no_mask_dense(self) -> torch.Tensor:
        """The dense embedding of prompts without a mask, (1, C, h, w): the same for all."""
        embedding = self.no_mask_embed.weight.reshape(1, -1, 1, 1)
        return embedding.expand(-1, -1, *self.image_embedding_size)

    def embed_points(self, coords: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Coordinates (N, P, 2) and labels (N, P), as `forward` takes them, to (N, P, C)."""
        position = self._encode_coords(coords)
        is_padding = (labels == PADDING_LABEL).unsqueeze(-1)
        embedding = torch.where(is_padding, self.not_a_point_embed.weight, position)
        for label in range(len(self.point_embeddings)):
            chosen = (labels == label).unsqueeze(-1)
            embedding = embedding + chosen * self._point_embedding(label)
        return torch.where((labels == ZERO_LABEL).unsqueeze(-1), 0.0, embedding)

    def _embed_boxes(self, boxes: torch.Tensor) -> torch.Tensor:
        corners = self._encode_coords(boxes.reshape(len(boxes), -1, 2, 2))
        kinds = torch.cat([self._point_embedding(label) for label in BOX_CORNERS])
        return (corners + kinds).flatten(1, 2)

    def _encode_coords(self, coords: torch.Tensor) -> torch.Tensor:
        """Features (..., C) of pixel coordinates (..., 2), which name a pixel by its corner."""
        height, width = self.input_image_size
        return self.pe_layer.encode((coords + 0.5) / coords.new_tensor([width, height]))

    def _point_embedding(self, label: int) -> torch.Tensor:
        embedding = self.point_embeddings[label]
        assert isinstance(embedding, nn.Embedding)
        return embedding.weight
