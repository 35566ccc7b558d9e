"""COCO instances: one JSON file, or several, that pycocotools and all that build on it read."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from amg.exports.rendering import (
    Document,
    Format,
    FormatOptions,
    NumberedMask,
    Origin,
    Picture,
    Records,
    Rendering,
)
from amg.exports.text import exact, file_name, to_json
from amg.ops import polygons, rle
from amg.records import Rle

FileName = Literal["id", "uri", "name"]


class CocoOptions(FormatOptions):
    """What may be chosen of COCO."""

    segmentation: Literal["rle", "polygons"] = "rle"
    tolerance: Annotated[float, Field(ge=0)] = 0.0
    file_name: FileName = "id"
    images_per_file: Annotated[int, Field(ge=1)] | None = None
    label: str = "object"


class Coco(Format):
    """COCO instances JSON, RLE or polygons: pycocotools, torchvision, FiftyOne, Detectron2."""

    Options = CocoOptions

    def __init__(self, options: CocoOptions, origin: Origin) -> None:
        super().__init__(options, origin)
        self._classes = origin.classes(options.label)

    @property
    def images_per_file(self) -> int | None:  # noqa: D102
        return self.options.images_per_file

    def render(self, picture: Picture) -> Rendering:  # noqa: D102
        annotations, n_empty = [], 0
        for entry in picture.masks:
            segmentation = self.segmentation(entry.mask.rle)
            if segmentation:
                category_id = self._classes[entry.mask.category or self.options.label]
                values = annotation(picture, entry, segmentation, category_id)
                annotations.append(to_json(values))
            else:
                n_empty += 1
        image = to_json(image_record(picture, self.options.file_name))
        notes = {"empty masks left out": n_empty} if n_empty else {}
        return Rendering(records={"images": [image], "annotations": annotations}, notes=notes)

    def documents(self) -> list[Document]:  # noqa: D102
        return [Document("instances.json", self.json_pieces())]

    def json_pieces(self) -> list[bytes | Records]:
        """The text around the lists of images and annotations."""
        return frame(self.origin, categories(self._classes, self.options.label))

    def segmentation(self, mask: Rle) -> Any:
        """COCO's `segmentation` of a mask; nothing for an empty one."""
        if self.options.segmentation == "polygons":
            return coco_polygons(mask, self.options.tolerance)
        return rle.to_coco(mask)


def coco_polygons(mask: Rle, tolerance_px: float) -> list[list[int]]:
    """A polygon x, y, x, y, ... for each part, along the borders of pixels."""
    loops = (polygons.bridge_holes(part) for part in polygons.trace_rle(mask, "borders"))
    loops = (polygons.simplify(polygons.corners(loop), tolerance_px) for loop in loops)
    return [loop.ravel().tolist() for loop in loops]


def annotation(
    picture: Picture, entry: NumberedMask, segmentation: Any, category_id: int
) -> dict[str, Any]:
    """A mask as COCO's annotation.

    `bbox` counts pixels, as pycocotools does, and is not the run's, which is one less. `score` is
    the asker's, where a prompt has one: what evaluations rank by.
    """
    mask = entry.mask
    return {
        "id": entry.id,
        "image_id": picture.number,
        "category_id": category_id,
        "segmentation": segmentation,
        "area": mask.area,
        "bbox": list(rle.pixel_box_xywh(mask.rle)),
        "iscrowd": 0,
        "score": exact(mask.predicted_iou if mask.score is None else mask.score),
        "predicted_iou": exact(mask.predicted_iou),
        "stability_score": exact(mask.stability_score),
        "point_coords": [[exact(value) for value in point] for point in mask.points_xy],
        "crop_box": list(mask.crop_box_xywh),
        "crop_layer": mask.crop_layer,
        "level": mask.level,
        "parent_id": entry.parent_id,
        **({} if mask.prompt is None else {"prompt_id": mask.prompt_id}),
    }


def frame(origin: Origin, classes: list[dict[str, Any]]) -> list[bytes | Records]:
    """A JSON file with its categories, and places for records of images and annotations."""
    info = {"description": f"masks by {origin.model}", "run": origin.run_id}
    start = to_json({"info": info, "licenses": [], "categories": classes})
    return [
        start.removesuffix(b"}") + b',\n"images":[\n',
        Records("images"),
        b'\n],\n"annotations":[\n',
        Records("annotations"),
        b"\n]}\n",
    ]


def image_record(picture: Picture, rule: FileName) -> dict[str, Any]:
    """An image as COCO has it, and what the run calls it."""
    height, width = picture.size_hw
    return {
        "id": picture.number,
        "width": width,
        "height": height,
        "file_name": file_name(picture, rule),
        "source_id": picture.image_id,
        "uri": picture.uri,
    }


def categories(classes: Mapping[str, int], label: str) -> list[dict[str, Any]]:
    """The classes as COCO has them: one of the label's name where masks have none."""
    return [
        {"id": number, "name": name, "supercategory": label} for name, number in classes.items()
    ]
