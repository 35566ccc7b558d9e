"""Cutting a map of tokens into square windows, and putting it together again."""

import torch
import torch.nn.functional as F


def window_partition(x: torch.Tensor, window: int) -> tuple[torch.Tensor, tuple[int, int]]:
    """Cut (B, h, w, C) into (B * n_windows, window, window, C), zero-padded right and below.

    Also gives the padded (h, w), which `window_unpartition` needs.
    Source: `segment_anything/modeling/image_encoder.py`.
    """
    if window <= 0:
        raise ValueError(f"window_size={window}: a window has at least one cell")
    batch, h, w, channels = x.shape
    x = F.pad(x, (0, 0, 0, -w % window, 0, -h % window))
    h_padded, w_padded = x.shape[1:3]
    x = x.view(batch, h_padded // window, window, w_padded // window, window, channels)
    windows = x.transpose(2, 3).reshape(-1, window, window, channels)
    return windows, (h_padded, w_padded)


def window_unpartition(
    windows: torch.Tensor, window: int, padded_hw: tuple[int, int], size_hw: tuple[int, int]
) -> torch.Tensor:
    """Undo `window_partition`: (B * n_windows, window, window, C) to (B, h, w, C)."""
    h_padded, w_padded = padded_hw
    n_rows, n_columns = h_padded // window, w_padded // window
    x = windows.view(-1, n_rows, n_columns, window, window, windows.shape[-1])
    x = x.transpose(2, 3).reshape(-1, h_padded, w_padded, windows.shape[-1])
    return x[:, : size_hw[0], : size_hw[1]]
