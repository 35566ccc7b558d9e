"""Hashes of image ids, for indexes that take eight bytes an image."""

from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np


def hash_ids(ids: Sequence[str]) -> np.ndarray:
    """Eight bytes for each: (N,) uint64."""
    return np.fromiter(_hashes(ids), np.uint64, len(ids))


def _hashes(ids: Iterable[str]) -> Iterable[int]:
    for image_id in ids:
        digest = blake2b(image_id.encode(), digest_size=8).digest()
        yield int.from_bytes(digest, "little")
