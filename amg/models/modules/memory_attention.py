"""SAM 2's memory attention: the current frame's features look at those of past frames.

Sources: "SAM 2: Segment Anything in Images and Videos" (2024), section 4;
`sam2/modeling/memory_attention.py`, whose parameter names and shapes are kept.
"""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from amg.models.modules.rope_attention import RoPEAttention

_ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu}
_MEMORY_DIM = 64  # channels of a memory in the published models
_INPUT_POSITION_WEIGHT = 0.1


class MemoryAttentionLayer(nn.Module):
    """Self-attention of the frame, attention from the frame to memories, an MLP.

    `self_attention` and `cross_attention` are those of the published models where not given.
    The `pos_enc_at_*` say to what positions are added, beside the rotary ones.
    """

    def __init__(
        self,
        d_model: int = 256,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str = "relu",
        *,
        pos_enc_at_attn: bool = False,
        pos_enc_at_cross_attn_keys: bool = True,
        pos_enc_at_cross_attn_queries: bool = False,
        self_attention: RoPEAttention | None = None,
        cross_attention: RoPEAttention | None = None,
    ) -> None:
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise ValueError(f"activation={activation!r}: not one of {', '.join(_ACTIVATIONS)}")
        self.self_attn = self_attention or RoPEAttention(d_model, num_heads=1, dropout=dropout)
        self.cross_attn_image = cross_attention or RoPEAttention(
            d_model, num_heads=1, dropout=dropout, kv_in_dim=_MEMORY_DIM, rope_k_repeat=True
        )
        self.linear1 = nn.Linear(d_model, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, d_model)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.norm3 = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        self.activation = _ACTIVATIONS[activation]
        self.pos_enc_at_attn = pos_enc_at_attn
        self.pos_enc_at_cross_attn_keys = pos_enc_at_cross_attn_keys
        self.pos_enc_at_cross_attn_queries = pos_enc_at_cross_attn_queries

    def forward(
        self,
        tgt: torch.Tensor,
        memory: torch.Tensor,
        pos: torch.Tensor | None = None,
        query_pos: torch.Tensor | None = None,
        num_k_exclude_rope: int = 0,
    ) -> torch.Tensor:
        """Update the frame's tokens (B, L, C) from the memories' (B, S, C_mem).

        `pos` and `query_pos` are the positions of memories and frame; the last
        `num_k_exclude_rope` memories have none on the map.
        """
        tgt = tgt + self.dropout(self._attend_to_itself(self.norm1(tgt), query_pos))
        tgt = tgt + self.dropout(
            self.cross_attn_image(
                _placed(self.norm2(tgt), query_pos if self.pos_enc_at_cross_attn_queries else None),
                _placed(memory, pos if self.pos_enc_at_cross_attn_keys else None),
                memory,
                num_k_exclude_rope,
            )
        )
        hidden = self.dropout(self.activation(self.linear1(self.norm3(tgt))))
        return tgt + self.dropout(self.linear2(hidden))

    def _attend_to_itself(self, x: torch.Tensor, position: torch.Tensor | None) -> torch.Tensor:
        placed = _placed(x, position if self.pos_enc_at_attn else None)
        return self.self_attn(placed, placed, x)


class MemoryAttention(nn.Module):
    """`num_layers` copies of a layer, and a normalisation at the end.

    Tokens come and go sequence first, (L, B, C). `batch_first` says whether the layers want them
    (B, L, C).
    """

    def __init__(
        self,
        d_model: int,
        pos_enc_at_input: bool,
        layer: nn.Module,
        num_layers: int,
        batch_first: bool = True,
    ) -> None:
        super().__init__()
        self.d_model = d_model
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(num_layers))
        self.norm = nn.LayerNorm(d_model)
        self.pos_enc_at_input = pos_enc_at_input
        self.batch_first = batch_first

    def forward(
        self,
        curr: torch.Tensor | list[torch.Tensor],
        memory: torch.Tensor,
        curr_pos: torch.Tensor | list[torch.Tensor] | None = None,
        memory_pos: torch.Tensor | None = None,
        num_obj_ptr_tokens: int = 0,
    ) -> torch.Tensor:
        """Condition the frame's tokens (L, B, C) on memories (S, B, C_mem): (L, B, C).

        `curr` and `curr_pos` may be lists of one, the coarsest level alone. The last
        `num_obj_ptr_tokens` memories are object pointers, which have no place on the map.
        """
        frame, frame_pos = _only_level(curr), None if curr_pos is None else _only_level(curr_pos)
        if frame.shape[1] != memory.shape[1]:
            raise ValueError(f"{frame.shape[1]} frames, but memories of {memory.shape[1]}")
        output = frame
        if self.pos_enc_at_input and frame_pos is not None:
            output = output + _INPUT_POSITION_WEIGHT * frame_pos
        if self.batch_first:
            output, memory = output.transpose(0, 1), memory.transpose(0, 1)
            frame_pos, memory_pos = (
                None if pos is None else pos.transpose(0, 1) for pos in (frame_pos, memory_pos)
            )
        for layer in self.layers:
            output = layer(output, memory, memory_pos, frame_pos, num_obj_ptr_tokens)
        output = self.norm(output)
        return output.transpose(0, 1) if self.batch_first else output


def _placed(x: torch.Tensor, position: torch.Tensor | None) -> torch.Tensor:
    return x if position is None else x + position


def _only_level(levels: torch.Tensor | list[torch.Tensor]) -> torch.Tensor:
    if isinstance(levels, torch.Tensor):
        return levels
    (level,) = levels
    return level
