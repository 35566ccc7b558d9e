"""ImageEncoderViT, SAM's image encoder: a plain ViT with windowed and a few global blocks.

Sources: "Exploring Plain Vision Transformer Backbones for Object Detection" (2022);
`segment_anything/modeling/image_encoder.py`, whose parameter names and shapes are kept.
Tokens are maps (B, h, w, C).
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from amg.models.modules.layers import MLPBlock, make_neck, run_block
from amg.models.modules.windows import window_partition, window_unpartition

# Relative positions' scores at once: a CPU's cache holds them; they are a gigabyte of a GPU's.
_BIAS_ELEMENTS_CPU, _BIAS_ELEMENTS_GPU = 2**22, 2**28


class PatchEmbed(nn.Module):
    """Cut an image (B, C_in, S, S) into patches and embed each: (B, S/p, S/p, C)."""

    def __init__(self, patch_size: int, in_chans: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C_in, S, S) to (B, S/p, S/p, C)."""
        return self.proj(x).permute(0, 2, 3, 1)


class Attention(nn.Module):
    """Multi-head attention over a map, with decomposed relative positions where asked for.

    `input_size` is the (h, w) that the relative positions were made for.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        qkv_bias: bool,
        use_rel_pos: bool,
        rel_pos_zero_init: bool,
        input_size: tuple[int, int],
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, dim * 3, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.use_rel_pos = use_rel_pos
        if use_rel_pos:
            h, w = input_size
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * h - 1, dim // num_heads))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * w - 1, dim // num_heads))
            if not rel_pos_zero_init:
                nn.init.trunc_normal_(self.rel_pos_h, std=0.02)
                nn.init.trunc_normal_(self.rel_pos_w, std=0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, h, w, C) to the same shape."""
        batch, h, w, _ = x.shape
        qkv = self.qkv(x).view(batch, h * w, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        if self.use_rel_pos:
            attended = self._attend_by_rows(q.unflatten(2, (h, w)), k, v)
        else:
            attended = F.scaled_dot_product_attention(q, k, v)
        return self.proj(attended.transpose(1, 2).reshape(batch, h, w, -1))

    def _attend_by_rows(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Attention with relative positions, some rows of queries (B, heads, h, w, C) at a time.

        Scores of all positions for all at once would be (B, heads, h * w, h * w).
        """
        batch, n_heads, h, w, _ = q.shape
        most_elements = _BIAS_ELEMENTS_GPU if q.is_cuda else _BIAS_ELEMENTS_CPU
        n_rows = max(1, most_elements // (batch * n_heads * w * h * w))
        by_row, by_column = _offset_table(self.rel_pos_h, h), _offset_table(self.rel_pos_w, w)
        attended = [
            F.scaled_dot_product_attention(
                rows.flatten(2, 3), k, v, attn_mask=_position_bias(rows, offsets, by_column)
            )
            for rows, offsets in zip(q.split(n_rows, dim=2), by_row.split(n_rows), strict=True)
        ]
        return torch.cat(attended, dim=2)


def _position_bias(q: torch.Tensor, by_row: torch.Tensor, by_column: torch.Tensor) -> torch.Tensor:
    """Scores (B, heads, r * w, h * w) that queries (B, heads, r, w, C) give to offsets.

    The row and the column offset score apart, and add (MViTv2, section 4.1). Embeddings of
    offsets: by_row (r, h, C), by_column (w, w, C).
    """
    along_rows = torch.einsum("bnhwc,hkc->bnhwk", q, by_row)
    along_columns = torch.einsum("bnhwc,wkc->bnhwk", q, by_column)
    bias = along_rows[..., :, None] + along_columns[..., None, :]
    return bias.flatten(4).flatten(2, 3)


def _offset_table(rel_pos: torch.Tensor, size: int) -> torch.Tensor:
    """(size, size, C) embeddings of the offset between each two of `size` positions.

    rel_pos (2 * n - 1, C), resized linearly where it was made for another size n.
    """
    n_offsets = 2 * size - 1
    if len(rel_pos) != n_offsets:
        resized = F.interpolate(rel_pos.T.unsqueeze(0), size=n_offsets, mode="linear")
        rel_pos = resized.squeeze(0).T
    position = torch.arange(size, device=rel_pos.device)
    return rel_pos[position[:, None] - position + size - 1]


class Block(nn.Module):
    """A transformer block whose attention is windowed, or global where `window_size` is 0."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float,
        qkv_bias: bool,
        norm_layer: Callable[[int], nn.Module],
        act_layer: type[nn.Module],
        use_rel_pos: bool,
        rel_pos_zero_init: bool,
        window_size: int,
        input_size: tuple[int, int],
    ) -> None:
        super().__init__()
        self.window_size = window_size
        attention_size = (window_size, window_size) if window_size else input_size
        self.norm1 = norm_layer(dim)
        self.attn = Attention(
            dim, num_heads, qkv_bias, use_rel_pos, rel_pos_zero_init, attention_size
        )
        self.norm2 = norm_layer(dim)
        self.mlp = MLPBlock(dim, int(dim * mlp_ratio), act_layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, h, w, C) to the same shape."""
        x = x + self._attend(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def _attend(self, x: torch.Tensor) -> torch.Tensor:
        if not self.window_size:
            return self.attn(x)
        size_hw = (x.shape[1], x.shape[2])
        windows, padded_hw = window_partition(x, self.window_size)
        return window_unpartition(self.attn(windows), self.window_size, padded_hw, size_hw)


class ImageEncoderViT(nn.Module):
    """The image encoder: (B, in_chans, S, S) to (B, out_chans, S/p, S/p).

    `window_size` 0: no windows, all blocks attend globally.
    """

    def __init__(
        self,
        img_size: int = 1024,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        out_chans: int = 256,
        qkv_bias: bool = True,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        act_layer: type[nn.Module] = nn.GELU,
        use_abs_pos: bool = True,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        window_size: int = 0,
        global_attn_indexes: Sequence[int] = (),
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.use_checkpoint = use_checkpoint
        self.img_size = img_size
        self.patch_size = patch_size
        grid_hw = (img_size // patch_size, img_size // patch_size)
        self.patch_embed = PatchEmbed(patch_size, in_chans, embed_dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, *grid_hw, embed_dim)) if use_abs_pos else None
        self.blocks = nn.ModuleList(
            Block(
                embed_dim,
                num_heads,
                mlp_ratio,
                qkv_bias,
                norm_layer,
                act_layer,
                use_rel_pos,
                rel_pos_zero_init,
                window_size=0 if i in global_attn_indexes else window_size,
                input_size=grid_hw,
            )
            for i in range(depth)
        )
        self.neck = make_neck(embed_dim, out_chans)

    def set_imgsz(self, imgsz: tuple[int, int]) -> None:
        """Take inputs of `imgsz`, (height, width) in pixels, multiples of the patch size.

        The parameters stay as published; positions are resized where they are used.
        """
        if any(n <= 0 or n % self.patch_size for n in imgsz):
            raise ValueError(f"imgsz={imgsz} must be positive multiples of {self.patch_size}")
        self.img_size = imgsz[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, in_chans, S, S) to (B, out_chans, S/p, S/p)."""
        x = self.patch_embed(x)
        if self.pos_embed is not None:
            x = x + _resize_positions(self.pos_embed, (x.shape[1], x.shape[2]))
        for block in self.blocks:
            x = run_block(block, x, self.use_checkpoint)
        return self.neck(x.permute(0, 3, 1, 2))


def _resize_positions(pos_embed: torch.Tensor, size_hw: tuple[int, int]) -> torch.Tensor:
    """Absolute positions (1, h, w, C), resized bicubically where the grid is another."""
    if pos_embed.shape[1:3] == size_hw:
        return pos_embed
    resized = F.interpolate(pos_embed.permute(0, 3, 1, 2), size=size_hw, mode="bicubic")
    return resized.permute(0, 2, 3, 1)
