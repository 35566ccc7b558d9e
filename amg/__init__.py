"""Segment everything in every image of a large corpus with the SAM family, and keep the result."""

from amg.config import GeneratorConfig
from amg.errors import (
    AmgError,
    CheckpointError,
    ConfigError,
    ImageError,
    OutputError,
    RleError,
    ShardError,
)
from amg.generate.generator import MaskGenerator
from amg.models.registry import load_model
from amg.records import ImageResult, Mask, Rle

__all__ = [
    "AmgError",
    "CheckpointError",
    "ConfigError",
    "GeneratorConfig",
    "ImageError",
    "ImageResult",
    "Mask",
    "MaskGenerator",
    "OutputError",
    "Rle",
    "RleError",
    "ShardError",
    "load_model",
]
