"""The committed rows of a run as pictures, with the masks that are wanted."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from amg.exports.rendering import NumberedMask, Picture
from amg.records import Mask, keep_masks, scores_enough
from amg.runs.results import RunResults
from amg.runs.schema import ImageRow

Share = Annotated[float, Field(ge=0, le=1)]


class Selection(BaseModel):
    """Which masks of a run are wanted. `limit`: only of the first so many planned images."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_predicted_iou: Share | None = None
    min_stability: Share | None = None
    min_area: Annotated[int, Field(ge=0)] = 0
    max_masks_per_image: Annotated[int, Field(ge=1)] | None = None
    limit: Annotated[int, Field(ge=1)] | None = None

    def choose(self, masks: Sequence[Mask]) -> list[int]:
        """The places of those that score enough; of too many the best, by predicted IoU."""
        good = [
            i
            for i, mask in enumerate(masks)
            if mask.area >= self.min_area
            and scores_enough(mask, self.min_predicted_iou, self.min_stability)
        ]
        if self.max_masks_per_image is None:
            return good
        best = sorted(good, key=lambda i: -masks[i].predicted_iou)
        return sorted(best[: self.max_masks_per_image])


class Walk:
    """Goes over parts of a run: ranges of planned images, of which some may not be there yet."""

    def __init__(self, run: RunResults, images_per_part: int, limit: int | None) -> None:
        self._run = run
        self.n_images = min(run.plan.n_images, limit or run.plan.n_images)
        self._images_per_part = images_per_part
        counts = (commit.tally.masks for commit in run.commits.values())
        self._masks_before = dict(zip(run.commits, accumulate(counts, initial=0), strict=False))

    @property
    def n_parts(self) -> int:
        """How many parts the images make."""
        return -(-self.n_images // self._images_per_part)

    def rows_of(self, part: int) -> range:
        """The planned images of a part, from 0."""
        start = part * self._images_per_part
        return range(start, min(start + self._images_per_part, self.n_images))

    def state_of(self, part: int) -> list[str]:
        """What there is of a part: equal lists if it would be exported to equal bytes."""
        return [
            f"{self._run.commits[shard].file} after {self._masks_before[shard]} masks"
            for shard in self._shards_of(part)
        ]

    def __call__(self, part: int) -> Iterator[tuple[int, int, ImageRow]]:
        """The rows of a part that are there: number of the image, id of its first mask, row."""
        wanted = self.rows_of(part)
        for shard in self._shards_of(part):
            mask_id = self._masks_before[shard] + 1
            rows = self._run.shard_rows(shard)
            for index, row in zip(self._run.plan.shard_rows(shard), rows, strict=True):
                if index in wanted:
                    yield index + 1, mask_id, row
                mask_id += len(row.masks)

    def _shards_of(self, part: int) -> list[int]:
        rows, size = self.rows_of(part), self._run.plan.images_per_shard
        shards = range(rows.start // size, (rows.stop - 1) // size + 1)
        return [shard for shard in shards if shard in self._run.commits]


def to_picture(number: int, first_id: int, row: ImageRow, selection: Selection) -> Picture | None:
    """A row as a picture, None where the image could not be read."""
    if row.height is None or row.width is None or row.status not in ("ok", "empty"):
        return None
    places = selection.choose(row.masks)
    chosen = keep_masks(row.masks, places)  # parents are places among the chosen now
    masks = tuple(
        NumberedMask(
            number=1 + place,
            id=first_id + place,
            mask=mask,
            parent_id=None if mask.parent is None else first_id + places[mask.parent],
        )
        for place, mask in zip(places, chosen, strict=True)
    )
    return Picture(number, row.image_id, row.uri, (row.height, row.width), masks)
