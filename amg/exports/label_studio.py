"""Label Studio: tasks with the masks as predictions, to be corrected there, and the interface.

Its page slows down with every region, and stops with some dozens of brush regions: of each image
only the best masks are taken, 50 unless more are asked for.
"""

from typing import Annotated, Any, Literal
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
from pydantic import Field

from amg.exports.rendering import (
    Document,
    Format,
    FormatOptions,
    NumberedMask,
    Picture,
    Records,
    Rendering,
)
from amg.exports.text import exact, to_json
from amg.ops import brush_rle, polygons, rle
from amg.ops.polygons import Points

_MAX_BRUSHES = 50


class LabelStudioOptions(FormatOptions):
    """What may be chosen of Label Studio tasks."""

    segmentation: Literal["polygons", "rle"] = "polygons"
    tolerance: Annotated[float, Field(ge=0)] = 0.75  # a person is to move the points
    images_per_file: Annotated[int, Field(ge=1)] | None = None
    image_url: str | None = None
    label: str = "object"
    from_name: str = "label"
    to_name: str = "image"


class LabelStudio(Format):
    """Label Studio tasks with predictions, as polygons or brush regions, and config.xml."""

    Options = LabelStudioOptions

    def __init__(self, options: LabelStudioOptions, origin: Any) -> None:
        super().__init__(options, origin)
        self._is_brush = options.segmentation == "rle"
        self._kind = "brushlabels" if self._is_brush else "polygonlabels"

    @property
    def images_per_file(self) -> int | None:  # noqa: D102
        return self.options.images_per_file

    @property
    def max_masks_per_image(self) -> int | None:  # noqa: D102
        return _MAX_BRUSHES if self._is_brush else None

    def render(self, picture: Picture) -> Rendering:  # noqa: D102
        regions, n_split = [], 0
        for entry in picture.masks:
            values = self._values(entry, picture.size_hw)
            n_split += len(values) > 1
            regions += [self._region(picture, entry, i, v) for i, v in enumerate(values)]
        scores = [entry.mask.predicted_iou for entry in picture.masks]
        prediction = {
            "model_version": self.origin.model,
            "score": exact(float(np.mean(scores))) if scores else 0.0,
            "result": regions,
        }
        task = {"data": self._data(picture), "predictions": [prediction]}
        notes = {"masks of several parts, each a region": n_split} if n_split else {}
        return Rendering(records={"tasks": [to_json(task)]}, notes=notes)

    def documents(self) -> list[Document]:  # noqa: D102
        tag = "BrushLabels" if self._is_brush else "PolygonLabels"
        classes = self.origin.classes(self.options.label)
        labels = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in classes)
        config = (
            f'<View>\n  <Image name={quoteattr(self.options.to_name)} value="$image" '
            f'zoom="true" zoomControl="true"/>\n'
            f"  <{tag} name={quoteattr(self.options.from_name)} "
            f"toName={quoteattr(self.options.to_name)}>\n"
            f"{labels}  </{tag}>\n</View>\n"
        )
        tasks = Document("tasks.json", [b"[\n", Records("tasks"), b"\n]\n"])
        return [tasks, Document("config.xml", [config.encode()])]

    def _data(self, picture: Picture) -> dict[str, str]:
        prefix = self.options.image_url
        url = picture.uri if prefix is None else prefix + quote(picture.image_id)
        return {"image": url, "image_id": picture.image_id}

    def _values(self, entry: NumberedMask, size_hw: tuple[int, int]) -> list[dict[str, Any]]:
        """What a mask is there: one brush region, or a polygon for each part."""
        mask = entry.mask.rle
        if self._is_brush:
            is_empty = rle.area(mask) == 0
            return [] if is_empty else [{"format": "rle", "rle": list(brush_rle.encode(mask))}]
        return [
            {"points": self._percent(polygons.bridge_holes(part), size_hw), "closed": True}
            for part in polygons.trace_rle(mask, "borders")
        ]

    def _percent(self, loop: Points, size_hw: tuple[int, int]) -> list[list[float]]:
        points = polygons.simplify(polygons.corners(loop), self.options.tolerance)
        return np.round(points * 100 / np.array(size_hw[::-1]), 6).tolist()

    def _region(
        self, picture: Picture, entry: NumberedMask, index: int, value: dict[str, Any]
    ) -> dict[str, Any]:
        height, width = picture.size_hw
        return {
            "id": f"{entry.id}-{index}" if index else str(entry.id),
            "type": self._kind,
            "from_name": self.options.from_name,
            "to_name": self.options.to_name,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {**value, self._kind: [entry.mask.category or self.options.label]},
            "score": exact(entry.mask.predicted_iou),
        }
