"""The original SAM 2, `sam2` 1.1.0, without what it needs only for its configuration files.

The oracle of tests and benchmarks. Installing it: `SAM2_BUILD_CUDA=0 pip install --no-deps
--no-build-isolation sam2==1.1.0 iopath portalocker`. Its package starts hydra when it is imported,
and hydra pins an old antlr4, on which others of the development tools cannot run: so the package's
own `__init__`, which does nothing else, is left out here.
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml


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


def published_config(name: str) -> dict[str, Any]:
    """The model of a configuration that `sam2` ships, such as `sam2.1_hiera_t`."""
    generation = name.partition("_")[0]
    path = Path(_package().__path__[0], "configs", generation, f"{name}.yaml")
    return yaml.safe_load(path.read_text(encoding="utf-8"))["model"]


def instantiate(config: Any) -> Any:
    """Build what a configuration describes: mappings with a `_target_` are calls of it."""
    if isinstance(config, list):
        return [instantiate(item) for item in config]
    if not isinstance(config, dict):
        return config
    arguments = {key: instantiate(value) for key, value in config.items() if key != "_target_"}
    if "_target_" not in config:
        return arguments
    module, _, name = config["_target_"].rpartition(".")
    return getattr(importlib.import_module(module), name)(**arguments)


_package()
