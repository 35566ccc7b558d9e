"""Every family of models in one place: what marks its files, how they are read, what builds it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from amg.models.families.build import build_nano, build_sam2, build_sam_vit, build_tiny_sam
from amg.models.families.read_sizes import (
    Config,
    Shapes,
    read_sam2,
    read_sam_vit,
    read_tiny_sam,
)
from amg.models.families.sam import SAMModel
from amg.models.families.sam2 import SAM2Model
from amg.models.families.sizes import MOBILE_SAM, NANO, Sizes


@dataclass(frozen=True, slots=True)
class Family:
    """Models of one layout. `mark` begins a key that all its files have, and no other's.

    `read` takes the shapes of a file's tensors and a configuration; `build` takes what it gives.
    """

    mark: str
    read: Callable[[Shapes, Config], Sizes]
    build: Callable[[Any], SAMModel | SAM2Model]


FAMILIES: Mapping[str, Family] = {
    # Before `mobile_sam`, whose keys it has too.
    "nano": Family("image_encoder.fine.", read_tiny_sam(NANO.img_size), build_nano),
    "mobile_sam": Family(
        "image_encoder.patch_embed.seq.", read_tiny_sam(MOBILE_SAM.img_size), build_tiny_sam
    ),
    "sam_vit": Family("image_encoder.patch_embed.proj.", read_sam_vit, build_sam_vit),
    "sam2": Family("image_encoder.trunk.pos_embed", read_sam2, build_sam2),
}


def family_of(keys: Iterable[str]) -> str | None:
    """The name of the family whose file has these keys."""
    known = list(keys)
    marked = (name for name, f in FAMILIES.items() if any(k.startswith(f.mark) for k in known))
    return next(marked, None)
