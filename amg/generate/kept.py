"""Embeddings that are kept: from a model's features to arrays, and back without the encoder."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch

from amg.errors import ConfigError
from amg.models.interface import Frame, PromptableModel
from amg.records import Embedding, EmbeddingDtype


@dataclass(frozen=True, slots=True)
class FittedEmbedding:
    """An embedding of a model, and how its image lay in the model's input."""

    embedding: Embedding
    frame: Frame

    @property
    def nbytes(self) -> int:
        """What the arrays take."""
        return self.embedding.nbytes


def embedding_bytes(shapes: Mapping[str, tuple[int, int, int]], dtype: EmbeddingDtype) -> int:
    """What an image's arrays of these shapes (C, h, w) take."""
    return np.dtype(dtype).itemsize * sum(map(prod, shapes.values()))


def keep(
    model: PromptableModel, features: Any, size_hw: tuple[int, int], dtype: EmbeddingDtype
) -> Embedding:
    """One image's features, of `encode`, as an embedding in `dtype`.

    Raises ValueError for values that float16 cannot hold: they are above 65504.
    """
    packed = model.pack(features)
    arrays = {name: tensor.float().cpu().numpy() for name, tensor in packed.items()}
    with np.errstate(over="ignore"):  # it is looked for below
        kept = {name: np.ascontiguousarray(array, dtype) for name, array in arrays.items()}
    if dtype == "float16" and not all(np.isfinite(array).all() for array in kept.values()):
        raise ValueError("its embedding has values too large for float16: take float32")
    return Embedding(size_hw, kept, model.info.name, model.info.weights_sha256)


def fit_kept(model: PromptableModel, embedding: Embedding) -> FittedEmbedding:
    """An embedding with the frame that its image has in the model's input.

    Raises ConfigError where it is not of these weights, or of another input size.
    """
    ours, theirs = model.info.weights_sha256, embedding.weights_sha256
    if None not in (ours, theirs) and ours != theirs:
        raise ConfigError(
            f"an embedding of {embedding.model}, weights {_short(theirs)}: "
            f"the model is {model.info.name}, weights {_short(ours)}"
        )
    shapes = {name: array.shape for name, array in embedding.arrays.items()}
    if shapes != dict(model.packed_shapes):
        wanted = dict(model.packed_shapes)
        raise ConfigError(f"an embedding of {shapes}: {model.info.name} has {wanted} at its imgsz")
    return FittedEmbedding(embedding, model.frame_of(embedding.size_hw))


def to_features(model: PromptableModel, fitted: FittedEmbedding) -> Any:
    """The features that the embedding was made of, as `encode` gives them, float32."""
    # In memory of torch's own: where arrays begin decides how products of them are rounded.
    tensors = {
        name: torch.tensor(array, device=model.device).float()
        for name, array in fitted.embedding.arrays.items()
    }
    return model.unpack(tensors)


def _short(sha256: str | None) -> str:
    return f"{(sha256 or '')[:12]}..."
