"""From a name to a model ready for inference."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from amg.errors import CheckpointError, ConfigError
from amg.models.families.catalogue import FAMILIES
from amg.models.families.sam import SAMModel
from amg.models.families.sam2 import SAM2Model
from amg.models.interface import ModelInfo
from amg.models.precision import PRECISIONS, PRECISIONS_OF, Precision
from amg.models.zoo.checkpoint import load_weights
from amg.models.zoo.registry import MODELS, ModelSpec, locate_weights

logger = logging.getLogger(__name__)

_UNTESTED = ("mps",)
_PIXEL_MAX = 255.0
_INITIALISERS = (nn.init.uniform_, nn.init.normal_, nn.init.kaiming_uniform_)
_DRAWS = (torch.Tensor.uniform_, torch.Tensor.normal_)


def build_model(spec: ModelSpec) -> SAMModel | SAM2Model:
    """The architecture of a registered model, with random weights.

    Raises CheckpointError for sizes, read from a file, that make no model.
    """
    try:
        model = FAMILIES[spec.architecture].build(spec.sizes)
    except (ValueError, ZeroDivisionError) as error:
        raise CheckpointError(f"{spec.name}: {error}") from error
    if spec.normalisation is not None:
        unit = _PIXEL_MAX if isinstance(model, SAM2Model) else 1.0
        for buffer, values in (
            (model.pixel_mean, spec.normalisation.mean),
            (model.pixel_std, spec.normalisation.std),
        ):
            buffer.copy_(torch.tensor(values).view(-1, 1, 1) / unit)
    return model


def packed_shapes(
    name: str | None, checkpoint: str | Path | None, imgsz: int | None
) -> Mapping[str, tuple[int, int, int]]:
    """What a model's `pack` would give, by name, without its weights. Raises as `load_model`."""
    registered = MODELS.get(name or "")
    spec = registered or locate_weights(name, checkpoint)[0]
    with torch.device("meta"):
        model = build_model(spec)
    if imgsz is not None:
        _set_imgsz(model, imgsz)
    return model.packed_shapes


def load_model(
    name: str | None = None,
    *,
    checkpoint: str | Path | None = None,
    device: str | torch.device | None = None,
    imgsz: int | None = None,
    precision: Precision = "float32",
    compile: bool = False,
) -> SAMModel | SAM2Model:
    """Build a model and load its weights, ready for inference.

    name: of the registry. Without it, the built-in model, or what the checkpoint is: its sizes are
    read from its tensors. checkpoint: a file (.pt, .pth, .safetensors) or a folder of the published
    layout, of `transformers`' or of a trainer's, or `hf:owner/name`; without it the built-in
    weights, the cache folder and then the published place are tried.
    device: by default the GPU if there is one; "mps" is untested. imgsz: side of the square input
    in pixels, if not the model's own. precision: as `amg.models.precision` explains them; all but
    float32 change masks a little. compile: the image encoder by `torch.compile`, at its first
    image.

    Raises ConfigError for an unknown name, device, size or precision, or a machine that cannot
    compile, CheckpointError for the weights.
    """
    target = _resolve_device(device)
    _check_precision(precision, target)
    spec, weights = locate_weights(name, checkpoint)
    with _NoRandomWeights():
        model = build_model(spec)
    if imgsz is not None:
        _set_imgsz(model, imgsz)
    load_weights(model, weights.path)
    model.info = ModelInfo(spec.name, weights.sha256, spec.generator_defaults)
    model.precision = precision
    model = model.eval().requires_grad_(False).to(target)
    if compile:
        _compile_encoder(model)
    return model


class _NoRandomWeights(TorchFunctionMode):
    """Leaves new parameters as memory has them: a file's values take their place, all of them."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Skip what draws random numbers into a tensor, its first argument."""
        kwargs = kwargs or {}
        if func in _INITIALISERS:
            return args[0] if args else kwargs["tensor"]
        if func in _DRAWS:  # below an initialiser that looks at what it has drawn
            return args[0].zero_()
        return func(*args, **kwargs)


def _check_precision(precision: Precision, device: torch.device) -> None:
    if precision not in PRECISIONS:
        raise ConfigError(f"precision: {precision!r} is none of {', '.join(PRECISIONS)}")
    known = PRECISIONS_OF.get(device.type, PRECISIONS)
    if precision not in known:
        raise ConfigError(
            f"precision: {precision} is a GPU's; on {device.type} there are {' and '.join(known)}"
        )


def _compile_encoder(model: SAMModel | SAM2Model) -> None:
    """Let the encoder be compiled at its first image; its parameters stay where they are.

    Raises ConfigError now, not at the first image, where this machine cannot: code for a CPU needs
    a C++ compiler.
    """
    try:
        torch.compile(torch.nn.functional.gelu)(torch.zeros(8, device=model.device))
    except Exception as error:  # of any library that compiling goes through
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"compile: torch.compile fails on this machine: {reason}") from error
    model.image_encoder.compile()
    model.fixed_batches = True  # or it is compiled anew for the batches that are left over


def _set_imgsz(model: SAMModel | SAM2Model, imgsz: int) -> None:
    try:
        model.set_imgsz(imgsz)
    except ValueError as error:
        raise ConfigError(f"imgsz: {error}") from error


def _resolve_device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device: {device!r} is no torch device") from error
    if resolved.type not in ("cpu", "cuda", *_UNTESTED):
        raise ConfigError(f"device: {device!r} is none of cpu, cuda and mps")
    if resolved.type in _UNTESTED:
        if not torch.backends.mps.is_available():
            raise ConfigError(f"device: {device!r} asked for, but torch sees none here")
        logger.warning("device %s is untested: compare a few images with the CPU's", device)
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise ConfigError(f"device: {device!r} asked for, but torch sees {found} CUDA devices")
    return resolved
