"""One PNG a mask, in a folder an image, as the script `amg.py` of segment-anything writes them."""

from collections.abc import Iterator

import numpy as np

from amg.exports.png_file import to_png
from amg.exports.rendering import Document, Format, NumberedMask, Picture, Rendering
from amg.exports.text import csv_lines, exact, index_document, index_line
from amg.ops import rle

_FIELDS = [
    *("id", "area", "bbox_x0", "bbox_y0", "bbox_w", "bbox_h", "point_input_x", "point_input_y"),
    *("predicted_iou", "stability_score", "crop_box_x0", "crop_box_y0", "crop_box_w", "crop_box_h"),
]


class Png(Format):
    """One PNG a mask, 0 or 255, and metadata.csv, in a folder an image, as SAM's own script."""

    def render(self, picture: Picture) -> Rendering:  # noqa: D102
        folder = self.origin.names(picture.image_id)
        return Rendering(_files(picture, folder), {"index": [index_line(picture, folder)]})

    def documents(self) -> list[Document]:  # noqa: D102
        return [index_document()]


def _files(picture: Picture, folder: str) -> Iterator[tuple[str, bytes]]:
    for i, entry in enumerate(picture.masks):
        yield f"{folder}/{i}.png", to_png(rle.decode(entry.mask.rle) * np.uint8(255))
    rows = [_metadata(i, entry) for i, entry in enumerate(picture.masks)]
    yield f"{folder}/metadata.csv", csv_lines([_FIELDS, *rows])


def _metadata(index: int, entry: NumberedMask) -> list[object]:
    mask = entry.mask
    return [
        index,
        mask.area,
        *map(exact, mask.bbox_xywh),
        *(map(exact, mask.point_xy) if mask.point_xy is not None else ("", "")),
        exact(mask.predicted_iou),
        exact(mask.stability_score),
        *mask.crop_box_xywh,
    ]
