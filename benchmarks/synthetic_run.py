"""Runs' folders without a model: any rows, written and committed as a run does."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice, repeat
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from amg.inputs.sources import ImageSource
from amg.ops import rle
from amg.records import Mask
from amg.runs.folder import INPUTS, PLAN, Commit, Plan, Tally, commit_file, shard_file, to_json
from amg.runs.planned import INPUTS_SCHEMA
from amg.runs.schema import ImageRow
from amg.runs.shards import ShardWriter
from amg.storage.stores import Storage, open_storage

FINGERPRINT = "f" * 64
VERSION = "0.0.0+synthetic"
IDENTITY: Mapping[str, Any] = {"model": {"name": "synthetic"}}
_SIZE_HW = (480, 640)
_DIFFERENT = 20


def write_run(
    out: str | os.PathLike[str],
    rows: Iterable[ImageRow],
    n_images: int,
    images_per_shard: int,
    missing_shards: frozenset[int] = frozenset(),
    identity: Mapping[str, Any] = IDENTITY,
    sources: Sequence[ImageSource] | None = None,
    **of_plan: Any,
) -> Plan:
    """Write a run with these rows into `out`, without those of some shards.

    sources: where the images are; by default whole files, at the rows' uri. of_plan: more of the
    plan's fields, such as categories.
    """
    storage = open_storage(out)
    plan = Plan("a-run", FINGERPRINT, dict(identity), n_images, 0, images_per_shard, **of_plan)
    storage.write(PLAN, to_json(plan))
    whole_files: list[ImageSource] = []
    rows = iter(rows)
    for shard in range(plan.n_shards):
        part = list(islice(rows, images_per_shard))
        whole_files += [ImageSource(row.image_id, row.uri, os.fsencode(row.uri)) for row in part]
        if shard not in missing_shards:
            commit_rows(storage, plan, shard, part)
    with storage.staged(INPUTS) as staged:
        names = INPUTS_SCHEMA.names
        values = [{n: getattr(source, n) for n in names} for source in sources or whole_files]
        pq.write_table(pa.Table.from_pylist(values, schema=INPUTS_SCHEMA), staged)
        storage.publish(staged, INPUTS)
    return plan


def commit_rows(
    storage: Storage, plan: Plan, shard: int, rows: Iterable[ImageRow], attempt: str = "00000000"
) -> None:
    """Write one shard and its commit."""
    rows = list(rows)
    name, data = publish_rows(storage, shard, rows, attempt)
    tally = Tally.total(map(Tally.of, rows))
    digest = hashlib.sha256(data).hexdigest()
    commit = Commit(shard, name, len(data), digest, tally, attempt, plan.fingerprint)
    storage.write(commit_file(shard), to_json(commit))


def publish_rows(
    storage: Storage, shard: int, rows: Iterable[ImageRow], attempt: str
) -> tuple[str, bytes]:
    """Write one shard that nobody has committed; gives its name and bytes."""
    name = shard_file(shard, attempt)
    with storage.staged(name) as staged:
        with ShardWriter(staged, {"amg.version": VERSION}) as writer:
            for row in rows:
                writer.write(row)
        data = staged.read_bytes()
        storage.publish(staged, name)
    return name, data


def blob_rows(n_images: int, masks_per_image: int) -> Iterator[ImageRow]:
    """Images of 480 x 640 with smooth blobs, some with holes and islands; 20 that differ."""
    pictures = [_blobs(masks_per_image, np.random.default_rng(i)) for i in range(_DIFFERENT)]
    for i, masks in zip(range(n_images), chain.from_iterable(repeat(pictures)), strict=False):
        name = f"{i // 1000:04d}/{i:08d}.jpg"
        row = ImageRow(name, f"/photos/{name}", "ok", None, *_SIZE_HW, "RGB", "ab" * 32)
        yield replace(row, masks=masks)


def _blobs(n: int, rng: np.random.Generator) -> tuple[Mask, ...]:
    return tuple(_blob(rng) for _ in range(n))


def _blob(rng: np.random.Generator) -> Mask:
    height, width = _SIZE_HW
    noise = cv2.GaussianBlur(rng.random(_SIZE_HW, np.float32), (0, 0), rng.uniform(5, 15))
    y, x = rng.uniform(0, height), rng.uniform(0, width)
    rows, columns = np.ogrid[:height, :width]
    distance = np.hypot(rows - y, columns - x) / rng.uniform(15, 160)
    bits = distance + 0.15 * (noise - noise.mean()) / noise.std() < 1
    (encoded,) = rle.encode_masks(bits[None])
    left, top, w, h = rle.pixel_box_xywh(encoded)
    return Mask(
        rle=encoded,
        area=rle.area(encoded),
        bbox_xywh=(left, top, w - 1, h - 1),
        predicted_iou=float(rng.uniform(0.5, 1)),
        stability_score=float(rng.uniform(0.5, 1)),
        point_xy=(x, y),
        crop_box_xywh=(0, 0, width, height),
        crop_layer=0,
        level=int(rng.integers(3)),
    )
