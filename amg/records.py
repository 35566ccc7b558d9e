"""The values that flow through amg: frozen, typed, and with no more behaviour than reading them.

Shapes use one legend everywhere: B images or crops, N prompts, M masks, T tokens, C channels,
h w low resolution, H W full resolution. Boxes are XYXY inside and XYWH where results leave.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from amg.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

EmbeddingDtype = Literal["float16", "float32"]


@dataclass(frozen=True, slots=True)
class Rle:
    """A binary mask as COCO's compressed run-length encoding.

    `counts` holds column-major run lengths, background first, in COCO's printable form
    (pycocotools `maskApi.c`, rleToString). `size_hw` is (H, W).
    """

    size_hw: tuple[int, int]
    counts: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked of a model on one image: a box, points, a mask, or several of these together.

    Coordinates are in the image's pixels. `labels` has one of `points_xy` each: 1 on the object,
    0 off it. `prompt_id`, `category` and `score` are the asker's own: an annotation's id, the name
    of its class and a detector's confidence; they pass through to the masks.
    """

    box_xyxy: tuple[float, float, float, float] | None = None
    points_xy: tuple[tuple[float, float], ...] = ()
    labels: tuple[int, ...] = ()
    mask: Rle | None = None
    prompt_id: str | None = None
    category: str | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Mask:
    """One mask of an image, with everything known about it.

    Boxes are XYWH in the image's pixels; the width and height of `bbox_xywh` are differences of
    the first and last index, as in the original generator: one less than a count of pixels.
    `point_xy` is the point that was asked with: None where it was a box, a mask or several points.
    `level` is which of the model's three outputs for a prompt this was, 0 to 2, and 0 if it gave
    one; `crop_layer` 0 is the whole image. `parent` is the index, among the image's masks, of the
    smallest mask that contains this one: None if there is none, or if none was looked for.
    `prompt` is what somebody asked, None where a grid did. `object_score` is the logit of SAM 2's
    that there is an object at all; other models have None.
    """

    rle: Rle
    area: int
    bbox_xywh: tuple[float, float, float, float]
    predicted_iou: float
    stability_score: float
    point_xy: tuple[float, float] | None
    crop_box_xywh: tuple[int, int, int, int]
    crop_layer: int
    level: int
    parent: int | None = None
    prompt: Prompt | None = None
    object_score: float | None = None

    @property
    def points_xy(self) -> tuple[tuple[float, float], ...]:
        """The points that were asked with: none for a box alone."""
        if self.point_xy is not None:
            return (self.point_xy,)
        return () if self.prompt is None else self.prompt.points_xy

    @property
    def prompt_id(self) -> str | None:
        """The asker's name of the prompt."""
        return None if self.prompt is None else self.prompt.prompt_id

    @property
    def category(self) -> str | None:
        """The name of the class that the asker gave."""
        return None if self.prompt is None else self.prompt.category

    @property
    def score(self) -> float | None:
        """The asker's confidence, a detector's say; `predicted_iou` is the model's own."""
        return None if self.prompt is None else self.prompt.score


def scores_enough(
    mask: Mask, min_predicted_iou: float | None, min_stability_score: float | None
) -> bool:
    """Whether a mask has these scores at least; None asks for nothing, not even for a number.

    Predicted IoU may be negative, and the stability of a mask without a sure pixel is NaN.
    """
    return (min_predicted_iou is None or mask.predicted_iou >= min_predicted_iou) and (
        min_stability_score is None or mask.stability_score >= min_stability_score
    )


def keep_masks(masks: Sequence[Mask], kept: Sequence[int]) -> tuple[Mask, ...]:
    """The masks of an index, in its order: whose parent is not among them gets the next that is.

    That is the parent's parent, and so on; None where no ancestor is kept.
    """
    places = {old: new for new, old in enumerate(kept)}

    def place_of(ancestor: int | None) -> int | None:
        for _ in masks:  # no more often: a damaged file may have parents in a circle
            if ancestor is None or ancestor in places:
                break
            ancestor = masks[ancestor].parent
        return None if ancestor is None else places.get(ancestor)

    chosen = (masks[i] for i in kept)
    return tuple(
        mask if mask.parent is None else replace(mask, parent=place_of(mask.parent))
        for mask in chosen
    )


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """What a model's encoder made of one whole image of `size_hw` = (H, W) pixels, to be kept.

    `arrays` (C, h, w), float16 or float32, have the names that the model gives them. `model` and
    `weights_sha256` say whose they are, None where it is not known.
    """

    size_hw: tuple[int, int]
    arrays: "Mapping[str, np.ndarray]"
    model: str | None = None
    weights_sha256: str | None = None

    @property
    def nbytes(self) -> int:
        """What the arrays take."""
        return sum(array.nbytes for array in self.arrays.values())


def check_dtype(dtype: str) -> None:
    """Raise ConfigError for what embeddings are not kept in."""
    if dtype not in get_args(EmbeddingDtype):
        raise ConfigError(f"dtype {dtype!r}: expected one of {', '.join(get_args(EmbeddingDtype))}")


@dataclass(frozen=True, slots=True)
class StageSeconds:
    """Time spent on an image: encoding its crops, and making masks of the embeddings.

    Crops that shared an encoder batch share its time equally. What was prepared before, as runs do,
    is in neither: a row has that under `decode`.
    """

    encode: float = 0.0
    masks: float = 0.0


@dataclass(frozen=True, slots=True)
class ImageResult:
    """The masks of one image of `size_hw` = (H, W) pixels, in the original generator's order.

    `candidates`, where they were to be kept, are those that NMS chose from, in the prompts' order.
    `embedding`: where that was asked for, and no masks.
    """

    size_hw: tuple[int, int]
    masks: tuple[Mask, ...]
    seconds: StageSeconds = StageSeconds()
    candidates: tuple[Mask, ...] | None = None
    embedding: Embedding | None = None

    def to_annotations(self) -> list[dict[str, Any]]:
        """Give the list of dicts that `SamAutomaticMaskGenerator.generate` gives with COCO RLE.

        `point_coords` are the points that were asked with: none where it was a box or a mask.
        """
        return [
            {
                "segmentation": {"size": list(mask.rle.size_hw), "counts": mask.rle.counts},
                "area": mask.area,
                "bbox": list(mask.bbox_xywh),
                "predicted_iou": mask.predicted_iou,
                "point_coords": [list(point) for point in mask.points_xy],
                "stability_score": mask.stability_score,
                "crop_box": list(mask.crop_box_xywh),
            }
            for mask in self.masks
        ]
