"""Every model by name: what it is, where its weights are, what suits its generator.

Nothing here needs torch: planning and listing start at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from amg.config import BUILT_IN_MODEL, name_of_checkpoint
from amg.errors import ConfigError
from amg.models.families.sizes import (
    HIERA,
    MOBILE_SAM,
    NANO,
    SAM_VIT_B,
    SAM_VIT_H,
    SAM_VIT_L,
    SAM2Sizes,
    SAMViTSizes,
    Sizes,
)
from amg.models.zoo.download import PublishedFile
from amg.models.zoo.folders import Normalisation, read_normalisation
from amg.models.zoo.locate import LocatedWeights, find_checkpoint, find_own

_SAM_URL = "https://dl.fbaipublicfiles.com/segment_anything"
_SAM2_URL = "https://dl.fbaipublicfiles.com/segment_anything_2"
_MOBILE_SAM_URL = "https://github.com/ChaoningZhang/MobileSAM/raw/master/weights"
_TINY_SAM_URL = "https://github.com/xinghaochen/TinySAM/releases/download/1.0"
_ZENODO_URL = "https://zenodo.org/record"
_BUILT_IN_WEIGHTS = Path(__file__).parents[1] / "weights"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A registered model. `weights`: a published file, a built-in one's path, a name on the hub.

    `architecture` names the family of `amg.models.families.catalogue` that builds it, by `sizes`.
    `normalisation`: where it is not the family's own.
    """

    name: str
    description: str
    architecture: str
    weights: PublishedFile | Path | str
    sizes: Sizes
    generator_defaults: Mapping[str, Any] = field(default_factory=dict)
    normalisation: Normalisation | None = None

    def where(self) -> str:
        """Say where the weights come from, for people."""
        if isinstance(self.weights, PublishedFile):
            return self.weights.url
        return "built in" if isinstance(self.weights, Path) else self.weights


def _sam(
    name: str, description: str, file_name: str, sha256: str, hub_repo: str, sizes: SAMViTSizes
) -> ModelSpec:
    weights = PublishedFile(file_name, f"{_SAM_URL}/{file_name}", sha256, hub_repo)
    return ModelSpec(name, description, "sam_vit", weights, sizes)


# The names of the sizes, in files and on the hub.
_HIERA: Mapping[str, tuple[str, SAM2Sizes]] = dict(
    zip(
        ("t", "s", "b+", "l"),
        zip(("tiny", "small", "base_plus", "large"), HIERA, strict=True),
        strict=True,
    )
)
_SAM2_FOLDERS = {"2": "072824", "2.1": "092824"}


def _sam2(generation: Literal["2", "2.1"], size: str, millions: int, sha256: str) -> ModelSpec:
    long_size, sizes = _HIERA[size]
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
        sizes=replace(sizes, generation=generation),
        generator_defaults={"pred_iou_thresh": 0.8},
    )


def _micro_sam(
    size: Literal["b", "h"], field_: str, record: int, sha256: str, sizes: SAMViTSizes
) -> ModelSpec:
    """SAM fine-tuned for light ("lm") or electron ("em") microscopy."""
    kind = {"lm": "light", "em": "electron"}[field_]
    file_name = f"vit_{size}_{field_}.pth"
    return ModelSpec(
        name=f"micro_sam_vit_{size}_{field_}",
        description=f"micro-sam, SAM ViT-{size.upper()} for {kind} microscopy, first version",
        architecture="sam_vit",
        weights=PublishedFile(file_name, f"{_ZENODO_URL}/{record}/files/{file_name}", sha256),
        sizes=sizes,
    )


def _slim_sam(pruned: int, embed_dim: int, mlp_dim: int) -> ModelSpec:
    """SAM ViT-B, its width and its MLPs pruned alike in all blocks."""
    return ModelSpec(
        name=f"slimsam_{pruned}",
        description=f"SlimSAM-uniform-{pruned}: SAM ViT-B, {pruned} % of the encoder pruned",
        architecture="sam_vit",
        weights=f"hf:Zigeng/SlimSAM-uniform-{pruned}",
        sizes=replace(SAM_VIT_B, embed_dim=embed_dim, mlp_dim=mlp_dim),
    )


_SPECS = (
    ModelSpec(
        name="nano",
        description="built in: 5 M parameters, trained on procedural scenes; no download",
        architecture="nano",
        sizes=NANO,
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
        sizes=MOBILE_SAM,
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
        SAM_VIT_B,
    ),
    _sam(
        "sam_vit_l",
        "SAM ViT-L, 312 M parameters",
        "sam_vit_l_0b3195.pth",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        "facebook/sam-vit-large",
        SAM_VIT_L,
    ),
    _sam(
        "sam_vit_h",
        "SAM ViT-H, 641 M parameters",
        "sam_vit_h_4b8939.pth",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        "facebook/sam-vit-huge",
        SAM_VIT_H,
    ),
    ModelSpec(
        name="tinysam",
        description="TinySAM: MobileSAM's architecture, better distilled",
        architecture="mobile_sam",
        weights=PublishedFile(
            "tinysam.pth",
            f"{_TINY_SAM_URL}/tinysam.pth",
            "4b8edcf93af46e2a658ae455574de62873778a5cc3fd8e8adf094dcdfa957cf2",
        ),
        sizes=MOBILE_SAM,
    ),
    _slim_sam(50, 384, 1536),
    _slim_sam(77, 168, 696),
    ModelSpec(
        name="medsam",
        description="MedSAM: SAM ViT-B for medical images, pixels from 0 to 1",
        architecture="sam_vit",
        weights="hf:wanglab/medsam-vit-base",
        sizes=SAM_VIT_B,
        normalisation=Normalisation((0.0,) * 3, (255.0,) * 3),
    ),
    _micro_sam(
        "b",
        "lm",
        8250281,
        "5a59cc4064092d54cd4d92cd967e39168f3760905431e868e474d60fe5464ecd",
        SAM_VIT_B,
    ),
    _micro_sam(
        "b",
        "em",
        8250260,
        "c04a714a4e14a110f0eec055a65f7409d54e6bf733164d2933a0ce556f7d6f81",
        SAM_VIT_B,
    ),
    _micro_sam(
        "h",
        "lm",
        8250299,
        "9a65ee0cddc05a98d60469a12a058859c89dc3ea3ba39fed9b90d786253fbf26",
        SAM_VIT_H,
    ),
    _micro_sam(
        "h",
        "em",
        8250291,
        "ae3798a0646c8df1d4db147998a2d37e402ff57d3aa4e571792fbb911d8a979c",
        SAM_VIT_H,
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
    name: str | None, checkpoint: str | Path | None = None
) -> tuple[ModelSpec, LocatedWeights]:
    """A model's entry and its weights on this machine, downloaded if need be, without loading.

    Without a name: the built-in model, or what the checkpoint is. That is the entry whose file it
    is; else one made of its tensors and of the configuration beside them.

    Raises as `load_model` does.
    """
    if name is None and checkpoint is not None:
        weights = find_own(checkpoint)
        spec = _entry_of(checkpoint, weights)
    else:
        spec = get_spec(name or BUILT_IN_MODEL)
        weights = find_checkpoint(spec.name, spec.weights, checkpoint)
    if spec.normalisation is None and weights.path.is_dir():
        spec = replace(spec, normalisation=read_normalisation(weights.path))
    return spec, weights


def _entry_of(checkpoint: str | Path, weights: LocatedWeights) -> ModelSpec:
    for spec in MODELS.values():
        published = spec.weights
        sha256 = published.sha256 if isinstance(published, PublishedFile) else None
        if weights.sha256 == sha256 or str(checkpoint) == published:
            return spec
    # Reading a file needs torch.
    from amg.models.zoo.recognise import recognise  # noqa: PLC0415

    return recognise(weights.path, name_of_checkpoint(checkpoint))
