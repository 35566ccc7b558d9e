"""What a checkpoint file holds: load it strictly, or save one.

Nothing in a file is ever executed, and all that is wrong with one is a CheckpointError.
`locate.py` says where files are found, `download.py` how they are fetched.
"""

import os
import re
import zipfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from amg.errors import CheckpointError
from amg.models.zoo.transformers_keys import is_transformers_layout, to_published_layout

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Buffers that a model computes for itself, and that files of its family may hold all the same.
_DERIVED_SUFFIXES = (".attention_bias_idxs",)
_SHOWN = 3  # how many keys an error names

_VIT = {(768, 12): "sam_vit_b", (1024, 24): "sam_vit_l", (1280, 32): "sam_vit_h"}
_TINY_VIT = {64: "mobile_sam", 32: "nano"}
_HIERA = {12: "t", 16: "s", 24: "b+", 48: "l"}


def load_weights(model: nn.Module, path: Path) -> None:
    """Copy the weights of a file into a model, in the model's dtypes; all of them, or none.

    path: `.safetensors`, or what `torch.save` wrote; a state dict, or {"model": state dict}, with
    the published keys or those of `transformers`. Apart from `_DERIVED_SUFFIXES`, keys and shapes
    must be the model's own, and all values finite. A file without any of the model's
    `optional_parts` leaves it without them.

    Raises CheckpointError that names the file, how many keys are wrong, and the first of them.
    """
    try:
        state = _read(path)
        if is_transformers_layout(state):
            state = to_published_layout(state)
        targets = model.state_dict()
        absent = _absent_parts(model, state)
        targets = {key: t for key, t in targets.items() if key.partition(".")[0] not in absent}
        buffers = {key for key, _ in model.named_buffers() if key not in targets}
        state = {
            key: tensor
            for key, tensor in state.items()
            if not (key.endswith(_DERIVED_SUFFIXES) and key in buffers)
        }
        _require_same_keys(state, targets)
        _require_usable_values(state, targets)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    for part in absent:
        setattr(model, part, None)
    model.load_state_dict(state)


def save_weights(
    model: nn.Module, path: Path, metadata: Mapping[str, str] | None = None, half: bool = False
) -> None:
    """Write a model's weights as safetensors under the published keys; the whole file, or nothing.

    half: floating values as float16, half the size; `load_weights` brings them back to the
    model's own dtype.

    Raises CheckpointError for values that are not finite (in float16: above 65504), or where the
    file cannot be written.
    """
    state = {
        key: (tensor.half() if half and tensor.is_floating_point() else tensor)
        .detach()
        .cpu()
        .contiguous()
        for key, tensor in model.state_dict().items()
    }
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        _require_finite(state.items())
        save_file(state, partial, dict(metadata or {}))
        partial.replace(path)
    except (CheckpointError, OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def recognise(state: Mapping[str, torch.Tensor]) -> str | None:
    """Which model a state dict of the published layout looks like, by its sizes."""
    if width := _width(state, "image_encoder.patch_embed.proj.weight"):
        depth = _depth(state, "image_encoder.blocks.")
        return _VIT.get((width, depth), f"a SAM ViT of width {width} and depth {depth}")
    if width := _width(state, "image_encoder.patch_embed.seq.2.c.weight"):
        return _TINY_VIT.get(width, f"a SAM with a TinyViT of width {width}")
    if depth := _depth(state, "image_encoder.trunk.blocks."):
        generation = "sam2.1" if "no_obj_embed_spatial" in state else "sam2"
        known = depth in _HIERA
        return f"{generation}_hiera_{_HIERA[depth]}" if known else f"a SAM 2 of depth {depth}"
    return None


def _width(state: Mapping[str, torch.Tensor], key: str) -> int:
    """The first dimension of a tensor, 0 where there is no such tensor."""
    return state[key].shape[0] if key in state and state[key].ndim else 0


def _depth(state: Collection[str], prefix: str) -> int:
    """How many blocks are numbered after `prefix`."""
    return len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})


def _read(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in a file, whatever its layout."""
    if path.suffix.lower() == ".pt2":
        raise CheckpointError("an exported program holds code, and is refused; give a state dict")
    try:
        if not path.is_file():
            raise CheckpointError("there is no such file")
        if path.stat().st_size == 0:
            raise CheckpointError("the file is empty")
        is_safetensors = path.suffix.lower() == ".safetensors"
        content = load_file(path) if is_safetensors else _read_pickled(path)
    except CheckpointError:
        raise
    # Damaged and hostile files make the readers raise nearly anything. What they raise is not
    # shown: torch's pages of advice end in how to run the code of an unsafe file.
    except Exception as error:
        raise CheckpointError(_what_is_wrong(error)) from None
    return _tensors(content)


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
            return f"refused, and not run: it calls {code[1]}, and may hold nothing but tensors"
        return "no checkpoint, or a damaged one, or one that holds more than tensors"
    line = str(error).strip().partition("\n")[0][:200]
    return f"no checkpoint, or a damaged one ({type(error).__name__}: {line})"


def _tensors(content: Any) -> dict[str, torch.Tensor]:
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"no state dict: it holds {type(content).__name__}")
    others = [key for key, value in content.items() if not _is_plain(key, value)]
    if others:
        raise CheckpointError(f"{len(others)} values are no plain tensors ({_first(others)})")
    return content


def _is_plain(key: object, value: object) -> bool:
    return (
        isinstance(key, str)
        and isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )


def _absent_parts(model: nn.Module, state: Iterable[str]) -> tuple[str, ...]:
    """The model's optional parts, if the file has none of them; it may not have some."""
    parts: tuple[str, ...] = getattr(model, "optional_parts", ())
    return () if {key.partition(".")[0] for key in state} & set(parts) else parts


def _require_same_keys(
    state: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor]
) -> None:
    """Refuse a state dict whose keys or shapes are not the model's."""
    missing = [key for key in targets if key not in state]
    unexpected = [key for key in state if key not in targets]
    misshapen = [
        f"{key} {tuple(state[key].shape)} for {tuple(target.shape)}"
        for key, target in targets.items()
        if key in state and state[key].shape != target.shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
    problems = [f"{len(keys)} keys {kind} ({_first(keys)})" for kind, keys in kinds if keys]
    if problems:
        raise CheckpointError("; ".join(problems) + _mismatch(recognise(state), recognise(targets)))


def _mismatch(file: str | None, model: str | None) -> str:
    if file is None or file == model:
        return ""
    return f"; this looks like {file}, and the model is {model or 'another'}"


def _require_usable_values(
    state: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor]
) -> None:
    """Refuse values that the model's dtypes cannot hold."""
    wrong = [
        f"{key} {state[key].dtype} for {target.dtype}"
        for key, target in targets.items()
        if state[key].dtype not in (_FLOATS if target.is_floating_point() else (target.dtype,))
    ]
    if wrong:
        raise CheckpointError(f"{len(wrong)} tensors of an unusable type ({_first(wrong)})")
    # One tensor at a time: float64 may overflow where it is narrowed.
    _require_finite((key, state[key].to(target.dtype)) for key, target in targets.items())


def _require_finite(tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
    bad = [key for key, tensor in tensors if not tensor.isfinite().all()]
    if bad:
        raise CheckpointError(f"{len(bad)} tensors hold NaN or infinity ({_first(bad)})")


def _first(keys: Collection[object]) -> str:
    """The first few of some keys; as they come from a file, without control characters."""
    shown = [str(key).encode("unicode_escape").decode()[:120] for key in list(keys)[:_SHOWN]]
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(shown) + more
