"""Small runs whose masks are known."""

import numpy as np

from amg.ops import rle
from amg.records import Mask
from amg.runs.schema import ImageRow
from benchmarks.synthetic_run import write_run
from tests.ops.shapes import SHAPES

SIZE_HW = (60, 80)


def make_mask(bits, score=0.75, stability=0.5, **values):
    """A mask with the fields that fit its bits; scores need more than a decimal in 32 bits."""
    (encoded,) = rle.encode_masks(bits[None])
    x, y, w, h = rle.pixel_box_xywh(encoded)
    return Mask(
        **{
            "rle": encoded,
            "area": rle.area(encoded),
            "bbox_xywh": (x, y, max(0.0, w - 1), max(0.0, h - 1)),
            "predicted_iou": float(np.float32(score)),
            "stability_score": float(np.float32(stability)),
            "point_xy": (x + 0.5, y + 0.5),
            "crop_box_xywh": (0, 0, *bits.shape[::-1]),
            "crop_layer": 0,
            "level": 1,
            **values,
        }
    )


def blob(seed):
    """A large shape with holes and islands."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((12, 16)) < 0.6
    return coarse.repeat(5, axis=0).repeat(5, axis=1) ^ (rng.random(SIZE_HW) < 0.02)


def shape(name):
    """An odd shape in an image of the usual size."""
    bits = np.zeros(SIZE_HW, bool)
    h, w = SHAPES[name].shape
    bits[7 : 7 + h, 11 : 11 + w] = SHAPES[name]
    return bits


def make_row(image_id, masks=(), uri=None, size_hw=SIZE_HW):
    status = "ok" if masks else "empty"
    uri = uri or f"/photos/{image_id}"
    return ImageRow(image_id, uri, status, None, *size_hw, "RGB", "ab" * 32, tuple(masks))


def failed_row(image_id):
    return ImageRow(image_id, f"/photos/{image_id}", "decode_error", "cut short")


def rows():
    """Blobs, odd shapes, an image without masks and one that could not be read."""
    return [
        make_row("a/one.jpg", [make_mask(blob(i), 0.9 - i / 10, 0.5 + i / 10) for i in range(4)]),
        failed_row("broken.jpg"),
        make_row("two.jpg", [make_mask(shape(name), 0.8) for name in SHAPES]),
        make_row("empty.jpg"),
        make_row("a/three.png", [make_mask(np.ones(SIZE_HW, bool), 0.6), make_mask(blob(9))]),
    ]


def make_run(folder, some_rows=None, images_per_shard=2, **options):
    """A committed run with these rows."""
    some_rows = rows() if some_rows is None else some_rows
    write_run(folder, some_rows, len(some_rows), images_per_shard, **options)
    return folder


def bits_of(row):
    """All masks of a row."""
    return [rle.decode(mask.rle) for mask in row.masks]


def contents(folder):
    """All files of an export but those that say how far it is."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".amg-export" not in path.parts
    }
