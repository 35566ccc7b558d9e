"""Images and crops through the image encoder, several together, whoever has questions on them."""

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any, TypeVar

from amg.models.interface import FittedImage, PromptableModel

Owner = TypeVar("Owner")


def encode_in_batches(
    model: PromptableModel, fitted: Iterator[tuple[FittedImage, Owner]], batch_size: int
) -> Iterator[tuple[Owner, Any, float]]:
    """For what goes with each fitted image: its features, and the seconds that encoding it took.

    No more are taken at a time than are encoded together: what fits them may do so when it is
    asked. Those of a batch share its time equally. Where a model wants `fixed_batches`, its last
    image fills up those that are too small.
    """
    while True:
        started = time.perf_counter()
        batch = list(islice(fitted, batch_size))
        if not batch:
            return
        images = [image for image, _ in batch]
        if model.fixed_batches:
            images += images[-1:] * (batch_size - len(batch))
        features = model.encode(model.collate(images))
        encode_s = (time.perf_counter() - started) / len(batch)
        for (_, owner), its_features in zip(batch, features, strict=False):
            yield owner, its_features, encode_s
