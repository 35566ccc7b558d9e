"""What a checkpoint is, by its tensors: a registered model, one of other sizes, or none."""

from collections.abc import Mapping
from pathlib import Path

import torch

from amg.errors import CheckpointError
from amg.models.families.catalogue import FAMILIES, family_of
from amg.models.families.read_sizes import Shapes
from amg.models.families.sizes import Sizes, differing
from amg.models.zoo.folders import read_config
from amg.models.zoo.registry import MODELS, ModelSpec
from amg.models.zoo.tensors import first_of, read_tensors

_SHOWN = 2  # of the differences between a file and a registered model


def recognise(path: Path, name: str) -> ModelSpec:
    """An entry like the registry's for a checkpoint of one's own, called `name`.

    Raises CheckpointError for a file that cannot be read, or is no known model's: it then names
    the model that it fits best, and what differs.
    """
    try:
        shapes = _shapes(read_tensors(path))
        family = family_of(shapes)
        if family is None:
            raise CheckpointError(_nearest(shapes))
        sizes = _read_sizes(family, shapes, path)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return ModelSpec(
        name=name,
        description=describe(family, sizes),
        architecture=family,
        weights=path,
        sizes=sizes,
        generator_defaults=_rows(family)[0].generator_defaults,
    )


def _read_sizes(family: str, shapes: Shapes, path: Path) -> Sizes:
    config = read_config(path) if path.is_dir() else {}
    try:
        return FAMILIES[family].read(shapes, config)
    except (TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"the config.json beside it is damaged ({reason})") from error


def looks_like(state: Mapping[str, torch.Tensor]) -> str | None:
    """Which model a state dict of the published layout looks like; None if like none."""
    shapes = _shapes(state)
    family = family_of(shapes)
    if family is None:
        return None
    try:
        return describe(family, FAMILIES[family].read(shapes, {}))
    except CheckpointError:
        return f"an incomplete {family}"


def describe(family: str, sizes: Sizes) -> str:
    """The registered model of these sizes; else the nearest, and what differs from it."""
    known = {row.name: differing(sizes, row.sizes) for row in _rows(family)}
    nearest, differences = min(known.items(), key=lambda item: len(item[1]))
    said = [f"{name} {mine} for {theirs}" for name, (mine, theirs) in differences.items()]
    more = f" and {len(said) - _SHOWN} more differences" if len(said) > _SHOWN else ""
    return f"{nearest} with {', '.join(said[:_SHOWN])}{more}" if said else nearest


def _rows(family: str) -> list[ModelSpec]:
    return [row for row in MODELS.values() if row.architecture == family]


def _shapes(state: Mapping[str, torch.Tensor]) -> Shapes:
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def _nearest(shapes: Shapes) -> str:
    """What fits of a file whose image encoder is none that is known."""
    layouts: dict[str, Shapes] = {}
    for family, made in FAMILIES.items():
        with torch.device("meta"):
            row = _rows(family)[0]
            layouts[row.name] = _shapes(made.build(row.sizes).state_dict())
    nearest = max(layouts, key=lambda name: len(_shared(shapes, layouts[name])))
    shared = _shared(shapes, layouts[nearest])
    others = [key for key in shapes if key not in shared]
    if not shared:
        return f"no known model: none of its {len(shapes)} keys is one's ({first_of(others)})"
    return (
        f"no known model; it fits {nearest} best, in {len(shared)} of {len(layouts[nearest])} "
        f"keys; {len(others)} of its own are none of that ({first_of(others)})"
    )


def _shared(shapes: Shapes, layout: Shapes) -> set[str]:
    """Keys of both whose shapes are equal."""
    return {key for key, shape in layout.items() if shapes.get(key) == shape}
