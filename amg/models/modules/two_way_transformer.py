"""The mask decoder's transformer: tokens attend to the image, and the image to the tokens.

Sources: "Segment Anything" (2023), appendix A; `segment_anything/modeling/transformer.py`.
Tokens are (N, T, C) and pixels (N, h * w, C). Pixels that all prompts share may come as
(1, h * w, C): what depends on them alone is then computed once, until the tokens change them.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from amg.models.modules.layers import MLPBlock

MakeMLP = Callable[[int, int, type[nn.Module]], nn.Module]


class Attention(nn.Module):
    """Multi-head attention in `embedding_dim // downsample_rate` channels."""

    def __init__(self, embedding_dim: int, num_heads: int, downsample_rate: int = 1) -> None:
        super().__init__()
        internal_dim = embedding_dim // downsample_rate
        if internal_dim % num_heads:
            raise ValueError(f"{internal_dim} channels cannot be split into {num_heads} heads")
        self.num_heads = num_heads
        self.q_proj = nn.Linear(embedding_dim, internal_dim)
        self.k_proj = nn.Linear(embedding_dim, internal_dim)
        self.v_proj = nn.Linear(embedding_dim, internal_dim)
        self.out_proj = nn.Linear(internal_dim, embedding_dim)

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Map queries (N, L, C) over keys and values (N, S, C) to (N, L, C).

        A leading 1 in any of them stands for every prompt.
        """
        heads = [
            self.split_heads(project(x))
            for project, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        ]
        (batch,) = torch.broadcast_shapes(*(x.shape[:1] for x in heads))
        q, k, v = (x.expand(batch, -1, -1, -1) for x in heads)
        attended = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(attended.transpose(1, 2).flatten(2))

    def split_heads(self, x: torch.Tensor) -> torch.Tensor:
        """(N, L, C) to (N, heads, L, C / heads)."""
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class TwoWayAttentionBlock(nn.Module):
    """Self-attention of tokens, tokens to image, MLP on tokens, image to tokens."""

    def __init__(
        self,
        embedding_dim: int,
        num_heads: int,
        mlp_dim: int = 2048,
        activation: type[nn.Module] = nn.ReLU,
        attention_downsample_rate: int = 2,
        skip_first_layer_pe: bool = False,
        make_mlp: MakeMLP = MLPBlock,
    ) -> None:
        super().__init__()
        self.self_attn = Attention(embedding_dim, num_heads)
        self.norm1 = nn.LayerNorm(embedding_dim)
        self.cross_attn_token_to_image = Attention(
            embedding_dim, num_heads, attention_downsample_rate
        )
        self.norm2 = nn.LayerNorm(embedding_dim)
        self.mlp = make_mlp(embedding_dim, mlp_dim, activation)
        self.norm3 = nn.LayerNorm(embedding_dim)
        self.cross_attn_image_to_token = Attention(
            embedding_dim, num_heads, attention_downsample_rate
        )
        self.norm4 = nn.LayerNorm(embedding_dim)
        self.skip_first_layer_pe = skip_first_layer_pe

    def forward(
        self,
        tokens: torch.Tensor,
        pixels: torch.Tensor,
        token_pe: torch.Tensor,
        pixel_pe: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Update tokens (N, T, C) and pixels (N or 1, h * w, C) given their positions."""
        tokens = self.attend_to_tokens(tokens, token_pe)
        placed_pixels = pixels + pixel_pe
        tokens = tokens + self.cross_attn_token_to_image(tokens + token_pe, placed_pixels, pixels)
        tokens = self.transform(tokens)
        update = self.cross_attn_image_to_token(placed_pixels, tokens + token_pe, tokens)
        return tokens, self.norm4(pixels + update)

    def attend_to_tokens(self, tokens: torch.Tensor, token_pe: torch.Tensor) -> torch.Tensor:
        """The first step: tokens (N, T, C) attend to each other."""
        if self.skip_first_layer_pe:
            return self.norm1(self.self_attn(tokens, tokens, tokens))
        placed = tokens + token_pe
        return self.norm1(tokens + self.self_attn(placed, placed, tokens))

    def transform(self, tokens: torch.Tensor) -> torch.Tensor:
        """The third step, after attention to the pixels: each token (N, T, C) by itself."""
        tokens = self.norm2(tokens)
        return self.norm3(tokens + self.mlp(tokens))


class TwoWayTransformer(nn.Module):
    """`depth` two-way blocks and a last attention from tokens to image.

    `make_mlp` is called with (embedding_dim, mlp_dim, activation): families name its layers apart.
    """

    def __init__(
        self,
        depth: int,
        embedding_dim: int,
        num_heads: int,
        mlp_dim: int,
        activation: type[nn.Module] = nn.ReLU,
        attention_downsample_rate: int = 2,
        make_mlp: MakeMLP = MLPBlock,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayAttentionBlock(
                embedding_dim,
                num_heads,
                mlp_dim,
                activation,
                attention_downsample_rate,
                skip_first_layer_pe=i == 0,
                make_mlp=make_mlp,
            )
            for i in range(depth)
        )
        self.final_attn_token_to_image = Attention(
            embedding_dim, num_heads, attention_downsample_rate
        )
        self.norm_final_attn = nn.LayerNorm(embedding_dim)

    def forward(
        self, image_embedding: torch.Tensor, image_pe: torch.Tensor, point_embedding: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Map image (N or 1, C, h, w), its positions, and tokens (N, T, C).

        Gives tokens (N, T, C) and pixels (N, h * w, C).
        """
        pixels = image_embedding.flatten(2).transpose(1, 2)
        pixel_pe = image_pe.flatten(2).transpose(1, 2)
        tokens = point_embedding
        for layer in self.layers:
            tokens, pixels = layer(tokens, pixels, point_embedding, pixel_pe)
        update = self.final_attn_token_to_image(tokens + point_embedding, pixels + pixel_pe, pixels)
        return self.norm_final_attn(tokens + update), pixels
