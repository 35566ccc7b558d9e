"""What an error says of the device: whether it is lost, or its memory full. Without torch."""

import sys

_SAYS_MEMORY = ("can't allocate memory", "ALLOC_FAILED")  # torch's CPU allocator, CUDA's libraries


def is_device_lost(error: Exception) -> bool:
    """Whether the device is of no more use to this process, as after a CUDA assertion."""
    torch = sys.modules.get("torch")
    if torch is None or isinstance(error, torch.OutOfMemoryError):
        return False
    if isinstance(error, torch.AcceleratorError):
        return True
    if isinstance(error, RuntimeError) and torch.cuda.is_initialized():
        try:  # libraries of CUDA's report in their own words: ask the device
            torch.cuda.synchronize()
        except RuntimeError:
            return True
    return False


def empty_cache() -> None:
    """Set free what torch hoards of a GPU's memory."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.cuda.empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    """Whether smaller steps may help."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    said = isinstance(error, RuntimeError) and any(text in str(error) for text in _SAYS_MEMORY)
    return said or isinstance(error, MemoryError)
