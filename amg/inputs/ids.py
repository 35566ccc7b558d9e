"""Hashes of image ids, for indexes that take eight bytes an image."""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np


def hash_ids(ids: Sequence[str]) -> np.ndarray:
    """Eight bytes for each: (N,) uint64."""
    return np.fromiter(map(_hash, ids), np.uint64, len(ids))


def _hash(image_id: str) -> int:
    return int.from_bytes(blake2b(image_id.encode(), digest_size=8).digest(), "little")
