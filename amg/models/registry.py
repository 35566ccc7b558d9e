"""Every model by name: how it is built, where its weights are, what suits its generator."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from amg.errors import ConfigError
from amg.models.build import build_mobile_sam, build_nano, build_sam_vit
from amg.models.checkpoint import PublishedFile, find_checkpoint, load_weights
from amg.models.interface import ModelInfo
from amg.models.sam import SAMModel

_SAM_URL = "https://dl.fbaipublicfiles.com/segment_anything"
_MOBILE_SAM_URL = "https://github.com/ChaoningZhang/MobileSAM/raw/master/weights"
_BUILT_IN_WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A registered model. `weights` is a published file, or the path of a built-in one."""

    name: str
    description: str
    build: Callable[[], SAMModel]
    weights: PublishedFile | Path
    generator_defaults: Mapping[str, Any] = field(default_factory=dict)

    def where(self) -> str:
        """Say where the weights come from, for people."""
        return "built in" if isinstance(self.weights, Path) else self.weights.url


def _sam(
    name: str, description: str, file_name: str, sha256: str, hub_repo: str, **sizes: Any
) -> ModelSpec:
    weights = PublishedFile(file_name, f"{_SAM_URL}/{file_name}", sha256, hub_repo)
    return ModelSpec(name, description, lambda: build_sam_vit(**sizes), weights)


_SPECS = (
    ModelSpec(
        name="nano",
        description="built in: 5 M parameters, trained on procedural scenes; no download",
        build=build_nano,
        weights=_BUILT_IN_WEIGHTS / "nano.safetensors",
        # It scores lower, and its borders are softer, than SAM's.
        generator_defaults={
            "points_per_side": 24,
            "pred_iou_thresh": 0.3,
            "stability_score_thresh": 0.45,
        },
    ),
    ModelSpec(
        name="mobile_sam",
        description="MobileSAM, TinyViT-5M encoder, 10 M parameters",
        build=build_mobile_sam,
        weights=PublishedFile(
            "mobile_sam.pt",
            f"{_MOBILE_SAM_URL}/mobile_sam.pt",
            "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
        ),
    ),
    _sam(
        "sam_vit_b",
        "SAM ViT-B, 94 M parameters",
        "sam_vit_b_01ec64.pth",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        "facebook/sam-vit-base",
        embed_dim=768,
        depth=12,
        num_heads=12,
        global_attn_indexes=(2, 5, 8, 11),
    ),
    _sam(
        "sam_vit_l",
        "SAM ViT-L, 312 M parameters",
        "sam_vit_l_0b3195.pth",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        "facebook/sam-vit-large",
        embed_dim=1024,
        depth=24,
        num_heads=16,
        global_attn_indexes=(5, 11, 17, 23),
    ),
    _sam(
        "sam_vit_h",
        "SAM ViT-H, 641 M parameters",
        "sam_vit_h_4b8939.pth",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        "facebook/sam-vit-huge",
        embed_dim=1280,
        depth=32,
        num_heads=16,
        global_attn_indexes=(7, 15, 23, 31),
    ),
)

MODELS: Mapping[str, ModelSpec] = {spec.name: spec for spec in _SPECS}


def get_spec(name: str) -> ModelSpec:
    """Look a model up by name. Raises ConfigError that lists the names."""
    if name not in MODELS:
        raise ConfigError(f"model: no model is called {name!r}; there are {', '.join(MODELS)}")
    return MODELS[name]


def load_model(
    name: str,
    *,
    checkpoint: str | Path | None = None,
    device: str | torch.device | None = None,
    imgsz: int | None = None,
) -> SAMModel:
    """Build a model and load its weights, ready for inference.

    checkpoint: a file of the published layout or of `transformers`' (.pt, .pth, .safetensors);
    without it the built-in weights, the cache folder and then the published place are tried.
    device: by default the GPU if there is one. imgsz: side of the square input in pixels, if not
    the model's own.

    Raises ConfigError for an unknown name, device or size, CheckpointError for the weights.
    """
    spec = get_spec(name)
    target = _resolve_device(device)
    model = spec.build()
    if imgsz is not None:
        _set_imgsz(model, imgsz)
    weights = find_checkpoint(spec.name, spec.weights, checkpoint)
    load_weights(model, weights.path)
    model.info = ModelInfo(spec.name, weights.sha256, spec.generator_defaults)
    return model.eval().requires_grad_(False).to(target)


def _set_imgsz(model: SAMModel, imgsz: int) -> None:
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
