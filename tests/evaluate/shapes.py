"""Made masks, rows and ground truths, that several tests of evaluation share."""

import json

import numpy as np

from amg.ops import rle
from amg.records import Mask
from amg.runs.schema import ImageRow


def box(size_hw, y0, y1, x0, x1):
    """A rectangle's pixels, (H, W) bool."""
    bits = np.zeros(size_hw, dtype=bool)
    bits[y0:y1, x0:x1] = True
    return bits


def mask(bits, predicted_iou=0.9, stability_score=0.95, **changes):
    """A mask's record from its pixels."""
    (encoded,) = rle.encode_masks(bits[None])
    values = {
        "rle": encoded,
        "area": int(bits.sum()),
        "bbox_xywh": (0.0, 0.0, 1.0, 1.0),
        "predicted_iou": predicted_iou,
        "stability_score": stability_score,
        "point_xy": (1.0, 1.0),
        "crop_box_xywh": (0, 0, bits.shape[1], bits.shape[0]),
        "crop_layer": 0,
        "level": 0,
    }
    return Mask(**{**values, **changes})


def row(image_id, size_hw, masks=(), status="ok"):
    """A row of a run."""
    height, width = size_hw
    return ImageRow(image_id, image_id, status, height=height, width=width, masks=tuple(masks))


def annotation(number, image_id, bits, category_id=1, **changes):
    """An annotation of COCO's format, with run lengths."""
    (encoded,) = rle.encode_masks(bits[None])
    values = {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": rle.to_coco(encoded),
        "area": float(bits.sum()),
        "iscrowd": 0,
    }
    return {**values, **changes}


def coco_tree(images, annotations, categories=({"id": 1},)):
    """A ground truth of COCO's format; images are {id: (name, size_hw)}."""
    return {
        "images": [
            {"id": number, "file_name": name, "height": size_hw[0], "width": size_hw[1]}
            for number, (name, size_hw) in images.items()
        ],
        "annotations": list(annotations),
        "categories": list(categories),
    }


def write_json(path, tree):
    path.write_text(json.dumps(tree))
    return path
