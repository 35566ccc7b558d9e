"""YOLO segmentation labels: one text file an image, one line a mask.

A line is one polygon, so that holes and further parts are joined to it by bridges. Readers draw it
by `cv2.fillPoly`, which also draws the line: it runs through the centres of pixels, and what they
draw is the mask, with bridges of one pixel between its parts. Some readers cut off what is behind
the point, others round: a quarter of a pixel is added so that both find the same pixel.
"""

from typing import Annotated

import numpy as np
import yaml
from pydantic import Field

from amg.exports.rendering import Document, Format, FormatOptions, Origin, Picture, Rendering
from amg.exports.text import index_document, index_line
from amg.ops import polygons
from amg.ops.polygons import Outline, Points

_INTO_PIXEL = 0.25


class YoloOptions(FormatOptions):
    """What may be chosen of YOLO labels."""

    tolerance: Annotated[float, Field(ge=0)] = 0.0
    label: str = "object"


class Yolo(Format):
    """YOLO segmentation: labels/*.txt and data.yaml for ultralytics and supervision."""

    Options = YoloOptions

    def __init__(self, options: YoloOptions, origin: Origin) -> None:
        super().__init__(options, origin)
        self._places = {name: i for i, name in enumerate(origin.classes(options.label))}

    def render(self, picture: Picture) -> Rendering:  # noqa: D102
        traced = [polygons.trace_rle(entry.mask.rle, "centres") for entry in picture.masks]
        lines = [
            self._line(parts, picture.size_hw, entry.mask.category)
            for parts, entry in zip(traced, picture.masks, strict=True)
            if parts
        ]
        name = f"labels/{self.origin.names(picture.image_id)}.txt"
        return Rendering(
            [(name, "".join(lines).encode())],
            {"index": [index_line(picture, name)]},
            _notes(traced),
        )

    def documents(self) -> list[Document]:  # noqa: D102
        # No `path`: readers then take the folder of data.yaml, not the working directory.
        data = {
            "train": "images",
            "val": "images",
            "names": {i: name for name, i in self._places.items()},
        }
        return [Document("data.yaml", [yaml.safe_dump(data).encode()]), index_document()]

    def _line(self, parts: list[Outline], size_hw: tuple[int, int], category: str | None) -> str:
        loop = polygons.bridge_parts([polygons.bridge_holes(part) for part in parts])
        loop = polygons.simplify(polygons.corners(loop), self.options.tolerance)
        shares = (_at_least_three(loop) + _INTO_PIXEL) / size_hw[::-1]
        place = self._places[category or self.options.label]
        return f"{place} " + " ".join(map("%.7f".__mod__, shares.ravel().tolist())) + "\n"


def _at_least_three(loop: Points) -> Points:
    """Fewer points would be read as a box."""
    return np.resize(loop, (max(3, len(loop)), 2))


def _notes(traced: list[list[Outline]]) -> dict[str, int]:
    counts = {
        "masks with holes, joined by bridges": sum(any(p.holes for p in parts) for parts in traced),
        "masks of several parts, joined by bridges": sum(len(parts) > 1 for parts in traced),
        "empty masks left out": sum(not parts for parts in traced),
    }
    return {text: count for text, count in counts.items() if count}
