"""The peak of memory during a measurement. Needs Linux."""

from pathlib import Path

import torch


def forget_peak(device: torch.device) -> None:
    """Let the peak of memory begin anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")


def peak_mb(device: torch.device) -> float:
    """In megabytes: of tensors on a GPU, else of this whole process with its libraries."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    status = Path("/proc/self/status").read_text()
    peak_kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak_kib) * 1024 / 1e6
