"""The tensors of a checkpoint under the published names, from whatever file or folder holds them.

A file: `.safetensors`, or what `torch.save` wrote; a state dict, or one that a trainer has wrapped.
A folder: see `folders.py`. Nothing in a file is ever executed, and all that is wrong with one is a
CheckpointError.
"""

import logging
import re
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file

from amg.errors import CheckpointError
from amg.models.zoo.folders import weight_files
from amg.models.zoo.transformers_keys import is_transformers_layout, to_published_layout

logger = logging.getLogger(__name__)

# Under which key trainers keep the weights, the first that holds a dictionary; beside it are
# optimisers, counters, and what other models need.
_WRAPPERS = ("model", "state_dict", "model_state", "model_state_dict")
# What trainers put before every key: DistributedDataParallel, torch.compile, a class around SAM.
_PREFIXES = ("module.", "_orig_mod.", "model.", "sam.", "sam_model.")
_SHOWN = 3  # how many keys an error names


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The state dict of a file or folder, under the published names.

    What lies beside it in a trainer's file is left out, and said to the log.
    """
    if not path.is_dir():
        return _published(_read_file(path), path)
    state: dict[str, torch.Tensor] = {}
    for part in weight_files(path):
        content = _read_file(part)
        if not isinstance(content, dict) or content.keys() & state.keys():
            raise CheckpointError(f"{part.name} is no part of a state dict, or holds one's twice")
        state.update(content)
    return _published(state, path)


def first_of(keys: Collection[object]) -> str:
    """The first few of some keys; as they come from a file, without control characters."""
    shown = [str(key).encode("unicode_escape").decode()[:120] for key in list(keys)[:_SHOWN]]
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(shown) + more


def _published(content: Any, path: Path) -> dict[str, torch.Tensor]:
    state = _without_prefixes(_tensors(_unwrapped(content, path)))
    return to_published_layout(state) if is_transformers_layout(state) else state


def _unwrapped(content: Any, path: Path) -> Any:
    if not isinstance(content, dict):
        return content
    name = next((name for name in _WRAPPERS if isinstance(content.get(name), Mapping)), None)
    if name is None:
        return content
    if others := [key for key in content if key != name]:
        logger.info("%s: of its entries %s is read; not %s", path, name, first_of(others))
    return content[name]


def _without_prefixes(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict without what stands before all of its keys."""
    for prefix in _PREFIXES * 2:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
    return state


def _read_file(path: Path) -> Any:
    if path.suffix.lower() == ".pt2":
        raise CheckpointError("an exported program holds code, and is refused; give a state dict")
    try:
        if not path.is_file():
            raise CheckpointError("there is no such file")
        if path.stat().st_size == 0:
            raise CheckpointError("the file is empty")
        is_safetensors = path.suffix.lower() == ".safetensors"
        return load_file(path) if is_safetensors else _read_pickled(path)
    except CheckpointError:
        raise
    # Damaged and hostile files make the readers raise nearly anything. What they raise is not
    # shown: torch's pages of advice end in how to run the code of an unsafe file.
    except Exception as error:
        raise CheckpointError(_what_is_wrong(error)) from None


def _read_pickled(path: Path) -> Any:
    is_archive = zipfile.is_zipfile(path)
    if is_archive:
        _require_torch_save(path)
    # Mapped, the file's pages come and go as they are copied: no second copy in memory.
    return torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)


def _require_torch_save(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    names = [member.filename.partition("/")[2] for member in members]
    if "data.pkl" not in names or "constants.pkl" in names:
        raise CheckpointError(
            "an archive, but not of a state dict; TorchScript and exported programs hold code, "
            "and are refused"
        )
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise CheckpointError("a compressed archive, which torch.save never writes, is refused")


def _what_is_wrong(error: Exception) -> str:
    """One line for what a reader raised."""
    if isinstance(error, UnpicklingError):
        if code := re.search(r"GLOBAL ([\w.]+)", str(error)):
            return (
                f"refused, and not run: it calls {code[1]}, and may hold nothing but tensors; "
                "of a model that was pickled whole, ask for its state_dict() or for safetensors"
            )
        return "no checkpoint, or a damaged one, or one that holds more than tensors"
    line = str(error).strip().partition("\n")[0][:200]
    return f"no checkpoint, or a damaged one ({type(error).__name__}: {line})"


def _tensors(content: Any) -> dict[str, torch.Tensor]:
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"no state dict: it holds {type(content).__name__}")
    others = [key for key, value in content.items() if not _is_plain(key, value)]
    if others:
        raise CheckpointError(f"{len(others)} values are no plain tensors ({first_of(others)})")
    return content


def _is_plain(key: object, value: object) -> bool:
    return (
        isinstance(key, str)
        and isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )
