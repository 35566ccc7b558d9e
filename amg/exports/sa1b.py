"""SA-1B: one JSON file an image, with the fields of the SA-1B dataset and no others."""

from typing import Any

from amg.exports.coco import FileName
from amg.exports.rendering import (
    Document,
    Format,
    FormatOptions,
    NumberedMask,
    Picture,
    Rendering,
)
from amg.exports.text import exact, file_name, index_document, index_line, to_json
from amg.ops import rle


class Sa1bOptions(FormatOptions):
    """What may be chosen of SA-1B."""

    file_name: FileName = "id"


class Sa1b(Format):
    """SA-1B JSON, one file an image: what was written for that dataset, `datasets`, datumaro."""

    Options = Sa1bOptions

    def render(self, picture: Picture) -> Rendering:  # noqa: D102
        height, width = picture.size_hw
        image = {
            "image_id": picture.number,
            "width": width,
            "height": height,
            "file_name": file_name(picture, self.options.file_name),
        }
        annotations = [_annotation(entry) for entry in picture.masks]
        name = self.origin.names(picture.image_id) + ".json"
        data = to_json({"image": image, "annotations": annotations})
        return Rendering([(name, data)], {"index": [index_line(picture, name)]})

    def documents(self) -> list[Document]:  # noqa: D102
        return [index_document()]


def _annotation(entry: NumberedMask) -> dict[str, Any]:
    """A mask in SA-1B's fields; the box is as the original generator writes it."""
    mask = entry.mask
    rle.runs(mask.rle)  # damaged counts are found here: pycocotools may crash on them
    return {
        "id": entry.id,
        "segmentation": rle.to_coco(mask.rle),
        "bbox": [exact(value) for value in mask.bbox_xywh],
        "area": mask.area,
        "predicted_iou": exact(mask.predicted_iou),
        "stability_score": exact(mask.stability_score),
        "crop_box": list(mask.crop_box_xywh),
        "point_coords": [[exact(value) for value in point] for point in mask.points_xy],
    }
