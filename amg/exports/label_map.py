"""Label maps: one PNG of 16 bits an image, each pixel with the number of one mask, or 0."""

import numpy as np

from amg.errors import OutputError
from amg.exports.png_file import to_png
from amg.exports.rendering import Document, Format, FormatOptions, Picture, Rendering
from amg.exports.text import index_document, index_line
from amg.ops.label_map import Int32s, Overlap, paint

_MOST = 2**16 - 1


class LabelMapOptions(FormatOptions):
    """What may be chosen of label maps."""

    overlap: Overlap = "smaller-on-top"


class LabelMap(Format):
    """One 16-bit PNG an image, without overlaps: value v is the row's v-th mask, 0 is none."""

    Options = LabelMapOptions

    def render(self, picture: Picture) -> Rendering:  # noqa: D102
        numbers = [entry.number for entry in picture.masks]
        if numbers and numbers[-1] > _MOST:
            raise OutputError(f"mask {numbers[-1]}: a label map has numbers up to {_MOST}")
        canvas = paint_picture(picture, self.options.overlap)
        name = self.origin.names(picture.image_id) + ".png"
        n_hidden = len(numbers) - int(np.count_nonzero(np.bincount(canvas.ravel())[1:]))
        return Rendering(
            [(name, to_png(canvas.astype(np.uint16)))],
            {"index": [index_line(picture, name)]},
            {"masks wholly under others": n_hidden} if n_hidden else {},
        )

    def documents(self) -> list[Document]:  # noqa: D102
        return [index_document()]


def paint_picture(picture: Picture, overlap: Overlap) -> Int32s:
    """All masks of a picture as (H, W) int32, by their numbers."""
    masks = [entry.mask for entry in picture.masks]
    return paint(masks, [entry.number for entry in picture.masks], picture.size_hw, overlap)
