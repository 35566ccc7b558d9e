"""COCO panoptic: RGB PNGs whose colours are segment ids, and one JSON file about them."""

import numpy as np

from amg.exports.coco import FileName, categories, frame, image_record
from amg.exports.label_map import paint_picture
from amg.exports.png_file import to_png
from amg.exports.rendering import Document, Format, FormatOptions, Origin, Picture, Rendering
from amg.exports.text import exact, to_json
from amg.ops.colours import index_colour
from amg.ops.label_map import Int32s, Overlap, pixel_boxes_xywh

# Where panopticapi and datumaro look: the folder of PNGs is called as the JSON file.
_NAME = "annotations/panoptic_default"
_FIRST_COLOUR = 220, 20, 60


class PanopticOptions(FormatOptions):
    """What may be chosen of COCO panoptic."""

    overlap: Overlap = "smaller-on-top"
    file_name: FileName = "id"
    label: str = "object"


class Panoptic(Format):
    """COCO panoptic: RGB PNGs of segment ids and a JSON file, without overlaps."""

    Options = PanopticOptions

    def __init__(self, options: PanopticOptions, origin: Origin) -> None:
        super().__init__(options, origin)
        self._classes = origin.classes(options.label)

    def render(self, picture: Picture) -> Rendering:  # noqa: D102
        canvas = paint_picture(picture, self.options.overlap)
        segments = self._segments(picture, canvas)
        png = self.origin.names(picture.image_id) + ".png"
        annotation = {"image_id": picture.number, "file_name": png, "segments_info": segments}
        image = image_record(picture, self.options.file_name)
        n_hidden = len(picture.masks) - len(segments)
        return Rendering(
            [(f"{_NAME}/{png}", to_png(_colours(canvas)))],
            {"images": [to_json(image)], "annotations": [to_json(annotation)]},
            {"masks wholly under others": n_hidden} if n_hidden else {},
        )

    def documents(self) -> list[Document]:  # noqa: D102
        colours = [_FIRST_COLOUR, *map(index_colour, range(1, len(self._classes)))]
        things = [
            {**thing, "isthing": 1, "color": list(colour)}
            for thing, colour in zip(
                categories(self._classes, self.options.label), colours, strict=True
            )
        ]
        return [Document(f"{_NAME}.json", frame(self.origin, things))]

    def _segments(self, picture: Picture, canvas: Int32s) -> list[dict[str, object]]:
        """What is visible of each mask: COCO wants a segment in JSON and PNG, or in none."""
        masks = [entry.mask for entry in picture.masks]
        numbers = [entry.number for entry in picture.masks]
        areas = np.bincount(canvas.ravel(), minlength=max(numbers, default=0) + 1)
        return [
            {
                "id": number,
                "category_id": self._classes[mask.category or self.options.label],
                "area": int(areas[number]),
                "bbox": box,
                "iscrowd": 0,
                "predicted_iou": exact(mask.predicted_iou),
                "stability_score": exact(mask.stability_score),
            }
            for mask, number, box in zip(
                masks, numbers, pixel_boxes_xywh(canvas, masks, numbers), strict=True
            )
            if areas[number]
        ]


def _colours(canvas: Int32s) -> np.ndarray:
    """Segment ids as (H, W, 3) uint8: id = R + 256 G + 65536 B."""
    return np.stack([canvas >> shift & 255 for shift in (0, 8, 16)], axis=-1).astype(np.uint8)
