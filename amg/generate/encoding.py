"""Images and crops through the image encoder, several together, whoever has questions on them."""

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any, TypeVar

from amg.generate.kept import FittedEmbedding, to_features
from amg.models.interface import FittedImage, PromptableModel

Owner = TypeVar("Owner")
Fitted = FittedImage | FittedEmbedding
"""What waits for its features: pixels for the encoder, or what that has made of them before."""


def encode_in_batches(
    model: PromptableModel, fitted: Iterator[tuple[Fitted, Owner]], batch_size: int
) -> Iterator[tuple[Owner, Any, float]]:
    """For what goes with each fitted image: its features, and the seconds that encoding it took.

    No more are taken at a time than are encoded together: what fits them may do so when it is
    asked. Those of a batch share its time equally. Where a model wants `fixed_batches`, its last
    image fills up those that are too small. Embeddings are not encoded again.
    """
    while True:
        started = time.perf_counter()
        batch = list(islice(fitted, batch_size))
        if not batch:
            return
        images = [item for item, _ in batch if isinstance(item, FittedImage)]
        if model.fixed_batches:
            images += images[-1:] * (batch_size - len(images))
        encoded = iter(model.encode(model.collate(images)) if images else ())
        encode_s = (time.perf_counter() - started) / len(batch)
        for item, owner in batch:
            kept = isinstance(item, FittedEmbedding)
            yield owner, to_features(model, item) if kept else next(encoded), encode_s
