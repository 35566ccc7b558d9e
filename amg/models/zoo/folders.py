"""Folders as Hugging Face lays them out: which files are read, and their sum.

The sum is over the names and sums of all files that decide the model: weights and configurations.
Nothing here needs torch.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amg.errors import CheckpointError
from amg.models.zoo.download import sha256_of

CONFIG = "config.json"
# Of an image processor: what transformers writes alone, and with others in one file.
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
# Weights in one file, or in the parts that an index names; safe ones first.
_WHOLE_OR_INDEX = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
# Of the values 0 to 255 that pixels have, where a configuration is silent.
_RESCALE_FACTOR = 1 / 255
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Normalisation:
    """What is subtracted from pixels, then what they are divided by; of values from 0 to 255."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def weight_files(folder: Path) -> list[Path]:
    """The files of a folder's weights: one, or the parts of an index.

    Raises CheckpointError where there are none, or parts are missing.
    """
    for whole, index in _WHOLE_OR_INDEX:
        if (folder / index).is_file():
            return _parts(folder / index)
        if (folder / whole).is_file():
            return [folder / whole]
    names = sorted(p.name for p in folder.iterdir() if p.suffix in (".safetensors", ".pth", ".pt"))
    there = f"; give one of its files: {', '.join(names[:5])}" if names else ""
    raise CheckpointError(f"the folder {folder} has no {_WHOLE_OR_INDEX[0][0]}{there}")


def has_weights(folder: Path) -> bool:
    """Whether a folder has weights, with all their parts."""
    try:
        return bool(weight_files(folder))
    except CheckpointError:
        return False


def _parts(index: Path) -> list[Path]:
    placed = read_json(index).get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise CheckpointError(f"{index} has no weight_map")
    names = sorted({str(name) for name in placed.values()})
    for name in names:
        if Path(name).name != name:
            raise CheckpointError(f"{index} names {name!r}, which is not in its folder")
        if not (index.parent / name).is_file():
            raise CheckpointError(f"{index} names {name}, which does not exist")
    return [index.parent / name for name in names]


def folder_sha256(folder: Path) -> str:
    """One sum for all that decides a folder's model, the same wherever the folder lies."""
    configs = (folder / name for name in (CONFIG, *PROCESSORS))
    files = [*weight_files(folder), *(path for path in configs if path.is_file())]
    lines = sorted(f"{path.name} {sha256_of(path)}\n" for path in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_config(path: Path) -> Mapping[str, Any]:
    """The `config.json` of a folder; nothing for a file, or where there is none."""
    config = path / CONFIG
    return read_json(config) if config.is_file() else {}


def read_normalisation(folder: Path) -> Normalisation | None:
    """How a folder's image processor normalises; None if as SAM does, or where it is silent."""
    for name in PROCESSORS:
        if (folder / name).is_file():
            content = read_json(folder / name)
            processor = content.get("image_processor", content)
            try:
                return _normalisation(processor)
            except (TypeError, ValueError, AttributeError) as error:
                raise CheckpointError(f"{folder / name}: {error}") from None
    return None


def _normalisation(processor: Mapping[str, Any]) -> Normalisation | None:
    factor = 1.0
    if processor.get("do_rescale", True):
        factor = float(processor.get("rescale_factor", _RESCALE_FACTOR))
    mean, std = (0.0,) * 3, (1.0,) * 3
    if processor.get("do_normalize", True):
        mean = tuple(float(v) for v in processor.get("image_mean", _IMAGENET_MEAN))
        std = tuple(float(v) for v in processor.get("image_std", _IMAGENET_STD))
    if len(mean) != 3 or len(std) != 3 or factor <= 0 or min(std) <= 0:
        raise ValueError("image_mean and image_std are not three numbers, or not positive")
    if (mean, std, factor) == (_IMAGENET_MEAN, _IMAGENET_STD, _RESCALE_FACTOR):
        return None
    return Normalisation(tuple(v / factor for v in mean), tuple(v / factor for v in std))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises CheckpointError for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds {type(content).__name__}, not an object")
    return content
