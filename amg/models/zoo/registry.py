"""Every model by name: what it is, where its weights are, what suits its generator.

Nothing here needs torch: planning and listing start at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from amg.errors import ConfigError
from amg.models.zoo.download import PublishedFile
from amg.models.zoo.locate import LocatedWeights, find_checkpoint

_SAM_URL = "https://dl.fbaipublicfiles.com/segment_anything"
_SAM2_URL = "https://dl.fbaipublicfiles.com/segment_anything_2"
_MOBILE_SAM_URL = "https://github.com/ChaoningZhang/MobileSAM/raw/master/weights"
_BUILT_IN_WEIGHTS = Path(__file__).parents[1] / "weights"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A registered model. `weights` is a published file, or the path of a built-in one.

    `architecture` names the function of `amg.models.families.build` that makes it, with `sizes`.
    """

    name: str
    description: str
    architecture: Literal["sam_vit", "mobile_sam", "nano", "sam2"]
    weights: PublishedFile | Path
    sizes: Mapping[str, Any] = field(default_factory=dict)
    generator_defaults: Mapping[str, Any] = field(default_factory=dict)

    def where(self) -> str:
        """Say where the weights come from, for people."""
        return "built in" if isinstance(self.weights, Path) else self.weights.url


def _sam(
    name: str, description: str, file_name: str, sha256: str, hub_repo: str, **sizes: Any
) -> ModelSpec:
    weights = PublishedFile(file_name, f"{_SAM_URL}/{file_name}", sha256, hub_repo)
    return ModelSpec(name, description, "sam_vit", weights, sizes)


# The names of the sizes, in files and on the hub, and the options of their `Hiera`.
_HIERA_SIZES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "t": (
        "tiny",
        {
            "embed_dim": 96,
            "num_heads": 1,
            "stages": (1, 2, 7, 2),
            "global_att_blocks": (5, 7, 9),
            "window_pos_embed_bkg_spatial_size": (7, 7),
        },
    ),
    "s": (
        "small",
        {
            "embed_dim": 96,
            "num_heads": 1,
            "stages": (1, 2, 11, 2),
            "global_att_blocks": (7, 10, 13),
            "window_pos_embed_bkg_spatial_size": (7, 7),
        },
    ),
    "b+": ("base_plus", {"embed_dim": 112, "num_heads": 2}),
    "l": (
        "large",
        {
            "embed_dim": 144,
            "num_heads": 2,
            "stages": (2, 6, 36, 4),
            "global_att_blocks": (23, 33, 43),
            "window_pos_embed_bkg_spatial_size": (7, 7),
            "window_spec": (8, 4, 16, 8),
        },
    ),
}
_SAM2_FOLDERS = {"2": "072824", "2.1": "092824"}


def _sam2(generation: Literal["2", "2.1"], size: str, millions: int, sha256: str) -> ModelSpec:
    long_size, trunk = _HIERA_SIZES[size]
    file_name = f"sam{generation}_hiera_{long_size}.pt"
    return ModelSpec(
        name=f"sam{generation}_hiera_{size}",
        description=f"SAM {generation}, Hiera {size.upper()}, {millions} M parameters",
        architecture="sam2",
        weights=PublishedFile(
            file_name,
            f"{_SAM2_URL}/{_SAM2_FOLDERS[generation]}/{file_name}",
            sha256,
            f"facebook/sam{generation}-hiera-{long_size.replace('_', '-')}",
        ),
        sizes={"generation": generation, **trunk},
        generator_defaults={"pred_iou_thresh": 0.8},
    )


_SPECS = (
    ModelSpec(
        name="nano",
        description="built in: 5 M parameters, trained on procedural scenes; no download",
        architecture="nano",
        weights=_BUILT_IN_WEIGHTS / "nano.safetensors",
        # It scores lower, and its borders are softer, than SAM's.
        generator_defaults={
            "points_per_side": 24,
            "pred_iou_thresh": 0.4,
            "stability_score_thresh": 0.35,
        },
    ),
    ModelSpec(
        name="mobile_sam",
        description="MobileSAM, TinyViT-5M encoder, 10 M parameters",
        architecture="mobile_sam",
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
    _sam2(
        "2",
        "t",
        39,
        "65b50056e05bcb13694174f51bb6da89c894b57b75ccdf0ba6352c597c5d1125",
    ),
    _sam2(
        "2",
        "s",
        46,
        "95949964d4e548409021d47b22712d5f1abf2564cc0c3c765ba599a24ac7dce3",
    ),
    _sam2(
        "2",
        "b+",
        81,
        "d0bb7f236400a49669ffdd1be617959a8b1d1065081789d7bbff88eded3a8071",
    ),
    _sam2(
        "2",
        "l",
        224,
        "7442e4e9b732a508f80e141e7c2913437a3610ee0c77381a66658c3a445df87b",
    ),
    _sam2(
        "2.1",
        "t",
        39,
        "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
    ),
    _sam2(
        "2.1",
        "s",
        46,
        "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
    ),
    _sam2(
        "2.1",
        "b+",
        81,
        "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
    ),
    _sam2(
        "2.1",
        "l",
        224,
        "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
    ),
)

MODELS: Mapping[str, ModelSpec] = {spec.name: spec for spec in _SPECS}


def get_spec(name: str) -> ModelSpec:
    """Look a model up by name. Raises ConfigError that lists the names."""
    if name not in MODELS:
        raise ConfigError(f"model: no model is called {name!r}; there are {', '.join(MODELS)}")
    return MODELS[name]


def locate_weights(
    name: str, checkpoint: str | Path | None = None
) -> tuple[ModelSpec, LocatedWeights]:
    """A model's entry and its weights on this machine, downloaded if need be, without loading.

    Raises as `load_model` does.
    """
    spec = get_spec(name)
    return spec, find_checkpoint(spec.name, spec.weights, checkpoint)
