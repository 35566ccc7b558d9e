"""Segment everything in every image of a large corpus with the SAM family, and keep the result.

The names below are imported when they are asked for: torch takes seconds to load, and planning,
looking at runs and reading results do without.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from amg.errors import (
    AmgError,
    CheckpointError,
    ConfigError,
    ImageError,
    OutputError,
    RleError,
    RunError,
    ShardError,
    StorageError,
)

if TYPE_CHECKING:
    from amg.config import Config, GeneratorConfig, load_config
    from amg.exports.formats import export
    from amg.generate.generator import MaskGenerator
    from amg.models.zoo.load import load_model
    from amg.predict.predictor import MaskPredictor
    from amg.records import Embedding, ImageResult, Mask, Prompt, Rle
    from amg.runs.interop import to_supervision
    from amg.runs.results import decode_mask, open_run
    from amg.view.report.build import write_report
    from pipelines.corpus.run import Run
    from pipelines.refilter import refilter_run

_HOMES = {
    "Config": "amg.config",
    "Embedding": "amg.records",
    "GeneratorConfig": "amg.config",
    "ImageResult": "amg.records",
    "Mask": "amg.records",
    "MaskGenerator": "amg.generate.generator",
    "MaskPredictor": "amg.predict.predictor",
    "Prompt": "amg.records",
    "Rle": "amg.records",
    "Run": "pipelines.corpus.run",
    "decode_mask": "amg.runs.results",
    "export": "amg.exports.formats",
    "load_config": "amg.config",
    "load_model": "amg.models.zoo.load",
    "open_run": "amg.runs.results",
    "refilter_run": "pipelines.refilter",
    "to_supervision": "amg.runs.interop",
    "write_report": "amg.view.report.build",
}

__all__ = [
    "AmgError",
    "CheckpointError",
    "Config",
    "ConfigError",
    "Embedding",
    "GeneratorConfig",
    "ImageError",
    "ImageResult",
    "Mask",
    "MaskGenerator",
    "MaskPredictor",
    "OutputError",
    "Prompt",
    "Rle",
    "RleError",
    "Run",
    "RunError",
    "ShardError",
    "StorageError",
    "decode_mask",
    "export",
    "load_config",
    "load_model",
    "open_run",
    "refilter_run",
    "to_supervision",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES[name]
    if home.startswith("pipelines."):
        from amg.shadow import require_our_pipelines  # noqa: PLC0415 - an import amg does without

        require_our_pipelines()
    return getattr(import_module(home), name)
