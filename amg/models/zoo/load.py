"""From a name to a model ready for inference."""

from collections.abc import Callable
from pathlib import Path

import torch

from amg.errors import ConfigError
from amg.models.families.build import build_mobile_sam, build_nano, build_sam2, build_sam_vit
from amg.models.families.sam import SAMModel
from amg.models.families.sam2 import SAM2Model
from amg.models.interface import ModelInfo
from amg.models.precision import PRECISIONS, Precision
from amg.models.zoo.checkpoint import load_weights
from amg.models.zoo.registry import ModelSpec, get_spec, locate_weights

_BUILDERS: dict[str, Callable[..., SAMModel | SAM2Model]] = {
    "sam_vit": build_sam_vit,
    "mobile_sam": build_mobile_sam,
    "nano": build_nano,
    "sam2": build_sam2,
}


def build_model(spec: ModelSpec) -> SAMModel | SAM2Model:
    """The architecture of a registered model, with random weights."""
    return _BUILDERS[spec.architecture](**spec.sizes)


def load_model(
    name: str,
    *,
    checkpoint: str | Path | None = None,
    device: str | torch.device | None = None,
    imgsz: int | None = None,
    precision: Precision = "float32",
    compile: bool = False,
) -> SAMModel | SAM2Model:
    """Build a model and load its weights, ready for inference.

    checkpoint: a file of the published layout or of `transformers`' (.pt, .pth, .safetensors);
    without it the built-in weights, the cache folder and then the published place are tried.
    device: by default the GPU if there is one. imgsz: side of the square input in pixels, if not
    the model's own. precision: as `amg.models.precision` explains them; all but float32 change
    masks a little. compile: the image encoder by `torch.compile`, at its first image.

    Raises ConfigError for an unknown name, device, size or precision, or a machine that cannot
    compile, CheckpointError for the weights.
    """
    target = _resolve_device(device)
    spec = get_spec(name)
    model = build_model(spec)
    if imgsz is not None:
        _set_imgsz(model, imgsz)
    _, weights = locate_weights(name, checkpoint)
    load_weights(model, weights.path)
    model.info = ModelInfo(spec.name, weights.sha256, spec.generator_defaults)
    model.precision = _check_precision(precision, target)
    model = model.eval().requires_grad_(False).to(target)
    if compile:
        _compile_encoder(model)
    return model


def _check_precision(precision: Precision, device: torch.device) -> Precision:
    if precision not in PRECISIONS:
        raise ConfigError(f"precision: {precision!r} is none of {', '.join(PRECISIONS)}")
    if precision == "tf32" and device.type != "cuda":
        raise ConfigError("precision: tf32 is a GPU's; on a CPU there are float32 and bf16")
    return precision


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
    if resolved.type not in ("cpu", "cuda"):
        raise ConfigError(f"device: {device!r} is neither cpu nor cuda")
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise ConfigError(f"device: {device!r} asked for, but torch sees {found} CUDA devices")
    return resolved
