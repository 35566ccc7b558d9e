"""Runs written by hand, as workers and driver would leave them, with masks that are known."""

import hashlib
import json

import numpy as np
from PIL import Image

from amg.ops import rle
from amg.records import Mask
from amg.runs.schema import ImageRow
from benchmarks import synthetic_run

SIZE_HW = (60, 90)
HOSTILE_IDS = (
    "<img src=x onerror=alert(1)>.jpg",
    "</script><script>alert(2)</script>.jpg",
    "\"quoted' & {{ 7 * 7 }} ${8*8}.jpg",
    "../../etc/passwd",
    "right-to-left \u202egpj.exe",
    "line\u2028break " + "long" * 60,
)
BIG, SMALL, OTHER = (
    (slice(5, 55), slice(5, 60)),
    (slice(15, 30), slice(20, 40)),
    (slice(20, 50), slice(65, 85)),
)
RECTANGLES = (SMALL, BIG, OTHER)
"""Masks 0 to 2 of the first image: a part, the object around it, and one beside it."""
SCORES = ((0.9, 0.6), (0.5, 0.95), (0.7, 0.8))
IDENTITY = {
    "model": {
        "name": "nano",
        "imgsz": None,
        "precision": "float32",
        "weights_sha256": "ab" * 32,
    },
    "generator": {"points_per_side": 24, "use_m2m": False, "point_grids": None},
    "run": {"max_image_pixels": 10**7},
}


def make_mask(bits, iou=0.8, stability=0.9):
    """A mask with these bits, (H, W) bool."""
    (encoded,) = rle.encode_masks(bits[None])
    height, width = bits.shape
    x, y, w, h = rle.pixel_box_xywh(encoded)
    ys, xs = np.nonzero(bits)
    point = (float(xs.mean()), float(ys.mean())) if len(xs) else (0.0, 0.0)
    return Mask(
        rle=encoded,
        area=rle.area(encoded),
        bbox_xywh=(x, y, max(0.0, w - 1), max(0.0, h - 1)),
        predicted_iou=iou,
        stability_score=stability,
        point_xy=point,
        crop_box_xywh=(0, 0, width, height),
        crop_layer=0,
        level=1,
    )


def rectangle_masks():
    """The masks of `RECTANGLES`."""
    masks = []
    for rectangle, scores in zip(RECTANGLES, SCORES, strict=True):
        bits = np.zeros(SIZE_HW, bool)
        bits[rectangle] = True
        masks.append(make_mask(bits, *scores))
    return tuple(masks)


def blob_masks(seed, n_masks):
    """Discs of many sizes, with scores of many values."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    masks = []
    for _ in range(n_masks):
        centre_y, centre_x = rng.uniform((0, 0), SIZE_HW)
        bits = np.hypot(y - centre_y, x - centre_x) < rng.uniform(2, 30)
        masks.append(make_mask(bits, rng.uniform(0.4, 1), rng.uniform(0.4, 1)))
    return tuple(masks)


def write_image(path, seed=0):
    """A small picture of squares of 10 pixels, which JPEG hardly changes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    squares = np.random.default_rng(seed).integers(90, 160, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(squares.repeat(10, axis=0).repeat(10, axis=1)).save(path)
    return path


def good_row(image_id, path, masks, seconds=0.1):
    """The row of an image that is there."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    stages = (seconds * 0.1, seconds * 0.3, seconds * 0.6)
    status = "ok" if masks else "empty"
    return ImageRow(image_id, str(path), status, None, *SIZE_HW, "RGB", digest, masks, *stages)


def write_run(out, rows, images_per_shard=4, leave_out=(), sources=None, **of_plan):
    """Write the folder of a run with these rows; `leave_out` shards are not committed."""
    identity = IDENTITY | {"run": IDENTITY["run"] | {"images_per_shard": images_per_shard}}
    synthetic_run.write_run(
        out, rows, len(rows), images_per_shard, frozenset(leave_out), identity, sources, **of_plan
    )
    return out


def log_events(out, *events):
    """Write events.jsonl: (time, session, event, values) each."""
    lines = [
        json.dumps({"time": time, "session": session, "event": event, **values})
        for time, session, event, values in events
    ]
    (out / "events.jsonl").write_text("\n".join(lines) + "\n")
