"""Ground truth in COCO's and LVIS's instances format, read without a dict for each annotation.

Formats: https://cocodataset.org/#format-data and https://www.lvisdataset.org/dataset.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pycocotools import mask as coco_mask

from amg.errors import EvaluationError, RleError
from amg.ops import rle
from amg.records import Rle
from amg.storage.urls import name_of

Frequency = Literal["frequent", "common", "rare"]
_FREQUENCIES: Mapping[str, Frequency] = {"f": "frequent", "c": "common", "r": "rare"}


@dataclass(frozen=True, slots=True)
class Annotation:
    """An instance as the file has it: outlines (x, y, x, y, ...) in pixels, or run lengths."""

    annotation_id: int
    image_id: int
    category_id: int
    shape: tuple[np.ndarray, ...] | Rle
    area: float | None
    is_crowd: bool


@dataclass(frozen=True, slots=True)
class CocoImage:
    """An image of the ground truth; its annotations by category, then in the file's order."""

    image_id: int
    name: str
    size_hw: tuple[int, int]
    annotations: tuple[Annotation, ...]


@dataclass(frozen=True, slots=True)
class CocoTruth:
    """A file of instances; `frequencies` by category id, empty where the file has none (COCO).

    `categories` are names by id.
    """

    images: tuple[CocoImage, ...]
    frequencies: Mapping[int, Frequency]
    categories: Mapping[int, str]


def read_coco(path: Path) -> CocoTruth:
    """Read a file of instances. Raises EvaluationError that names what is wrong with it."""
    try:
        # The hook turns each annotation into its record as soon as it is read: dicts of all of
        # them would take ten times the file's bytes.
        with path.open(encoding="utf-8") as file:
            tree = json.load(file, object_hook=_to_annotation)
        annotations = _list_of(tree, "annotations")
        if any(not isinstance(annotation, Annotation) for annotation in annotations):
            raise EvaluationError("annotations without image_id or segmentation: no instances?")
        by_image: defaultdict[int, list[Annotation]] = defaultdict(list)
        for annotation in annotations:
            by_image[annotation.image_id].append(annotation)
        images = tuple(_image(entry, by_image) for entry in _list_of(tree, "images"))
        categories = _list_of(tree, "categories")
        names = {int(c["id"]): str(c["name"]) for c in categories if "name" in c}
        return CocoTruth(images, _frequencies(categories), names)
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be read: {error.strerror}") from error
    except (EvaluationError, ValueError, KeyError, TypeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise EvaluationError(f"{path}: {reason}") from error


def annotation_rle(annotation: Annotation, size_hw: tuple[int, int]) -> Rle:
    """The run lengths of an instance in an image of `size_hw`, as COCO's tools have it (annToRLE).

    Raises EvaluationError for outlines far outside of the image, and run lengths of another size.
    """
    height, width = size_hw
    if isinstance(annotation.shape, Rle):
        if annotation.shape.size_hw != size_hw:
            raise EvaluationError(f"annotation {annotation.annotation_id}: not of its image's size")
        return annotation.shape
    for outline in annotation.shape:
        x, y = outline[::2], outline[1::2]
        # pycocotools allocates by an outline's length, whatever it is.
        if min(x.min() + width, 2 * width - x.max(), y.min() + height, 2 * height - y.max()) < 0:
            raise EvaluationError(
                f"annotation {annotation.annotation_id}: its outline is far outside of the image"
            )
    parts = coco_mask.frPyObjects([outline.tolist() for outline in annotation.shape], *size_hw)
    return rle.validate(coco_mask.merge(parts)["counts"], size_hw)


def _to_annotation(values: dict[str, Any]) -> Any:
    if "segmentation" not in values or "image_id" not in values:
        return values
    annotation_id = values.get("id", -1)
    try:
        area = values.get("area")
        return Annotation(
            annotation_id=int(annotation_id),
            image_id=int(values["image_id"]),
            category_id=int(values["category_id"]),
            shape=_shape(values["segmentation"]),
            area=None if area is None else float(area),
            is_crowd=bool(values.get("iscrowd", 0)),
        )
    except (RleError, ValueError, TypeError) as error:
        raise EvaluationError(f"annotation {annotation_id}: {error}") from error


def _shape(segmentation: Any) -> tuple[np.ndarray, ...] | Rle:
    if isinstance(segmentation, Mapping):
        return rle.from_coco(segmentation)
    if not isinstance(segmentation, list) or not segmentation:
        raise EvaluationError("segmentation is neither outlines nor run lengths")
    outlines = [np.asarray(outline, dtype=np.float64) for outline in segmentation]
    for outline in outlines:
        if outline.ndim != 1 or len(outline) % 2 or not np.isfinite(outline).all():
            raise EvaluationError("an outline is not points x, y, x, y, ...")
    # Published files have a few of one or two points, which enclose nothing.
    enclosing = tuple(outline for outline in outlines if len(outline) >= 6)
    if not enclosing:
        raise EvaluationError("no outline has three points or more")
    return enclosing


def _image(entry: Any, by_image: Mapping[int, Sequence[Annotation]]) -> CocoImage:
    image_id = int(entry["id"])
    # LVIS has addresses in place of file names.
    name = entry.get("file_name") or name_of(entry.get("coco_url", "")) or str(image_id)
    own = sorted(by_image.get(image_id, ()), key=lambda annotation: annotation.category_id)
    return CocoImage(
        image_id=image_id,
        name=name,
        size_hw=(int(entry["height"]), int(entry["width"])),
        annotations=tuple(own),
    )


def _frequencies(categories: Sequence[Any]) -> dict[int, Frequency]:
    return {
        int(category["id"]): _FREQUENCIES[category["frequency"]]
        for category in categories
        if "frequency" in category
    }


def _list_of(tree: Any, key: str) -> list[Any]:
    if not isinstance(tree, dict) or not isinstance(tree.get(key), list):
        raise EvaluationError(f"no list of {key}: not in COCO's instances format")
    return tree[key]
