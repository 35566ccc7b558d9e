"""CVAT: a zip of COCO 1.0, as its page imports annotations for a task that has the images.

It takes RLE for masks and polygons for polygons. CVAT finds the image by `file_name` in the task,
and has no place for scores unless the label has attributes of their names.
"""

from typing import Any

from amg.exports.coco import Coco
from amg.exports.rendering import Document
from amg.ops import rle
from amg.records import Rle


class Cvat(Coco):
    """CVAT: zip of COCO 1.0 annotations to upload to a task, masks or polygons."""

    def documents(self) -> list[Document]:  # noqa: D102
        member = "annotations/instances_default.json"
        return [Document("cvat.zip", self.json_pieces(), member)]

    def segmentation(self, mask: Rle) -> Any:
        """As COCO's, with run lengths as CVAT itself writes them: a list of numbers."""
        if self.options.segmentation == "polygons" or not rle.area(mask):
            return super().segmentation(mask)
        return {"size": list(mask.size_hw), "counts": rle.runs(mask).tolist()}
