"""The original SAM 2, `sam2` 1.1.0, and its generator, on the weights of one of our models.

The oracle of tests and benchmarks. Installing it: `SAM2_BUILD_CUDA=0 pip install --no-deps
--no-build-isolation sam2==1.1.0 iopath portalocker`. Its package starts hydra when it is imported,
to read its configurations, and hydra pins an antlr4 on which others of the development tools do not
run: so the package's own `__init__`, which does nothing else, is left out here.
"""

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from amg.config import GeneratorConfig
from amg.models.families.sam2 import SAM2Model
from benchmarks.parameters import parameters_of

# What `build_sam2` sets beside its configurations.
_POSTPROCESSING = {"dynamic_multimask_via_stability": True}


def _package() -> ModuleType:
    """The package `sam2`, its modules importable, without running its `__init__`."""
    if "sam2" not in sys.modules:
        spec = importlib.util.find_spec("sam2")
        if spec is None or spec.submodule_search_locations is None:
            raise ModuleNotFoundError("sam2 is not installed", name="sam2")
        package = ModuleType("sam2")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["sam2"] = package
    return sys.modules["sam2"]


class _Loader(yaml.SafeLoader):
    """With 1e-6 as a number, which YAML 1.1 wants written 1.0e-6."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^\d+e-?\d+$"), list("0123456789")
)


def published_config(name: str) -> dict[str, Any]:
    """The model of a configuration that `sam2` ships, by our name for it: `sam2.1_hiera_t`."""
    path = Path(_package().__path__[0], "configs", name.partition("_")[0], f"{name}.yaml")
    config = yaml.load(path.read_text(encoding="utf-8"), _Loader)["model"]  # noqa: S506 - it is safe
    return config | {"sam_mask_decoder_extra_args": _POSTPROCESSING}


def instantiate(config: Any, classes: Mapping[str, Callable[..., Any]] | None = None) -> Any:
    """Build what a configuration describes: mappings with a `_target_` are calls of it.

    classes: others in place of some of `sam2`'s, by their names.
    """
    if isinstance(config, list):
        return [instantiate(item, classes) for item in config]
    if not isinstance(config, dict):
        return config
    arguments = {name: instantiate(value, classes) for name, value in config.items()}
    if "_target_" not in arguments:
        return arguments
    target = arguments.pop("_target_")
    build = (classes or {}).get(target.rpartition(".")[2]) or _find(target)
    return build(**arguments)


def _find(target: str) -> Any:
    """What a dotted name stands for, its module imported."""
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)


def original_sam2(model: SAM2Model) -> Any:
    """Build the original `SAM2Base` with a registered model's weights, and for its inputs' size."""
    original = instantiate(published_config(model.info.name) | {"image_size": model.imgsz})
    original.load_state_dict(model.state_dict(), strict=True)
    return original.eval().to(model.device)


def original_predictor(model: Any) -> Any:
    """An image predictor of an original model, for inputs of any size."""
    return _fit(_find("sam2.sam2_image_predictor.SAM2ImagePredictor")(model))


def original_generator(original: Any, config: GeneratorConfig) -> Any:
    """The original generator of an original model, with the same parameters."""
    build = _find("sam2.automatic_mask_generator.SAM2AutomaticMaskGenerator")
    parameters = parameters_of(config, build)
    generator = build(original, output_mode="coco_rle", **parameters)
    _fit(generator.predictor)
    return generator


def _fit(predictor: Any) -> Any:
    """Its feature sizes are those of 1024 pixels, whatever the model's."""
    side = predictor.model.image_size
    predictor._bb_feat_sizes = [(side // stride, side // stride) for stride in (4, 8, 16)]
    return predictor


_package()
