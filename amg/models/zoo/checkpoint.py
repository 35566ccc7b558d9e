"""Load a checkpoint strictly into a model, or save one.

`tensors.py` says what files and folders may hold, `locate.py` where they are found.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from amg.errors import CheckpointError
from amg.models.zoo.recognise import looks_like
from amg.models.zoo.tensors import first_of, read_tensors

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Buffers that a model computes for itself, and that files of its family may hold all the same.
_DERIVED_SUFFIXES = (".attention_bias_idxs",)


def load_weights(model: nn.Module, path: Path) -> None:
    """Copy the weights of a file into a model, in the model's dtypes; all of them, or none.

    path: a file or a folder, as `read_tensors` takes them. Apart from `_DERIVED_SUFFIXES`, keys
    and shapes must be the model's own, and all values finite. A file without any of the model's
    `optional_parts` leaves it without them.

    Raises CheckpointError that names the file, how many keys are wrong, and the first of them.
    """
    try:
        state = read_tensors(path)
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
    problems = [f"{len(keys)} keys {kind} ({first_of(keys)})" for kind, keys in kinds if keys]
    if problems:
        raise CheckpointError("; ".join(problems) + _mismatch(state, targets))


def _mismatch(state: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor]) -> str:
    """What the file is, and what it was to be."""
    file, model = looks_like(state), looks_like(targets)
    if file is None or file == model:
        return f"; it fits {model} best" if file else ""
    return (
        f"; this looks like {file}, and the model is {model or 'another'}: "
        "a checkpoint without a model's name is loaded as what it is"
    )


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
        raise CheckpointError(f"{len(wrong)} tensors of an unusable type ({first_of(wrong)})")
    # One tensor at a time: float64 may overflow where it is narrowed.
    _require_finite((key, state[key].to(target.dtype)) for key, target in targets.items())


def _require_finite(tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
    bad = [key for key, tensor in tensors if not tensor.isfinite().all()]
    if bad:
        raise CheckpointError(f"{len(bad)} tensors hold NaN or infinity ({first_of(bad)})")
