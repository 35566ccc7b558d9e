"""What an evaluation comes to, and is kept as: RUN/evaluation/*.json.

Reading it needs nothing but what reading a run needs.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from amg.evaluate.ranking import Rank
from amg.runs.folder import EVALUATION
from amg.storage.patient import open_patiently
from amg.storage.stores import Storage, read_all
from amg.storage.urls import as_text, local_path, name_of, scheme_of, shown

Kind = Literal["coco", "lvis", "bsds", "run", "edges"]
ScoreName = Literal["predicted_iou", "stability_score"]
SCORES: tuple[ScoreName, ...] = ("predicted_iou", "stability_score")
_DIGITS = 8


@dataclass(frozen=True, slots=True)
class PartnerCounts:
    """How many images were compared, and what was left out.

    `n_failed` of those compared have a reason in place of masks, and count as without any.
    `other_size` names images whose masks have not the size of the ground truth: left out too.
    """

    n_compared: int
    n_failed: int
    n_rows_alone: int
    n_truth_alone: int
    rows_alone: tuple[str, ...]
    truth_alone: tuple[str, ...]
    other_size: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AverageRecall:
    """Recall of a group of instances by the first `max_masks` masks of each image (None: all).

    `average_recall` is the mean of `recall` over IoU 0.5, 0.55, ..., 0.95; `mean_best_iou` is over
    instances, of the most similar mask's IoU. All are None for a group without instances.
    """

    group: str
    n_instances: int
    max_masks: int | None
    average_recall: float | None
    mean_best_iou: float | None
    recall: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class CategoryScore:
    """Average precision of a category's masks: over IoU 0.5 to 0.95, at 0.5 and at 0.75."""

    category: str
    n_instances: int
    n_masks: int
    average_precision: float
    at_half: float
    at_three_quarters: float


@dataclass(frozen=True, slots=True)
class RegionScore:
    """Of BSDS500's drawings, by the first `max_masks` masks of each photo (None: all).

    `masks_per_image` is how many those were.
    """

    max_masks: int | None
    n_images: int
    n_regions: int
    masks_per_image: float
    covering: float
    average_recall: float
    mean_best_iou: float


@dataclass(frozen=True, slots=True)
class ImageDifference:
    """How many masks of an image have no partner in the other run."""

    image_id: str
    n_reference: int
    n_ours: int
    n_missing: int
    n_extra: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of two runs: sums over images.

    `n_exact` images are the same but for rounding, `n_identical` masks equal at the same place.
    `n_found`: masks of the reference with one of IoU 0.9 or more among ours. `n_matched`: one to
    one and half or more; `n_missing` and `n_extra` have no such partner among ours and among the
    reference's. The quantiles are of best IoUs over the reference's masks. A largest difference
    that is not finite, as beside a stability that is no number, is kept as None. `worst`: the
    images with most masks without partner.
    """

    n_images: int
    n_exact: int
    n_reference: int
    n_ours: int
    n_identical: int
    n_found: int
    n_matched: int
    n_missing: int
    n_extra: int
    mean_matched_iou: float | None
    mean_best_iou: float | None
    best_iou_quantiles: Mapping[float, float]
    min_twin_iou: float
    max_score_difference: float | None
    max_box_difference_px: float
    worst: tuple[ImageDifference, ...]


@dataclass(frozen=True, slots=True)
class EdgeScore:
    """Of edge maps, over all images.

    `ods`: best F at one threshold for all; `ois`: F with each image's own best threshold; `ap`:
    mean precision over recall; `r50`: recall where precision is one half.
    """

    n_images: int
    ods: float
    ois: float
    ap: float
    r50: float
    precision: tuple[float, ...]
    recall: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """The masks whose score is at least `low` and under `high`, or 1 and more in the last bin."""

    low: float
    high: float
    n_masks: int
    mean_score: float
    mean_iou: float


@dataclass(frozen=True, slots=True)
class ScoreCalibration:
    """A score against true IoU: correlations (None where one of them is constant), and bins.

    Bins are a hundredth wide, those without masks left out.
    """

    score: ScoreName
    n_masks: int
    pearson: float | None
    spearman: float | None
    bins: tuple[CalibrationBin, ...]

    def wider_bins(self, most: int = 20) -> tuple[CalibrationBin, ...]:
        """The same in at most so many bins, of 1, 2, 5, 10, 20, 50 or 100 hundredths.

        Never narrower than they are: earlier versions kept bins of five hundredths.
        """
        if not self.bins:
            return ()
        lows = [round(100 * part.low) for part in self.bins]
        least = max(round(100 * (part.high - part.low)) for part in self.bins)
        step = next(
            s
            for s in (1, 2, 5, 10, 20, 50, 100)
            if s >= least and lows[-1] // s - lows[0] // s < most
        )
        return tuple(
            _merged(list(parts), place * step, step)
            for place, parts in groupby(self.bins, lambda part: round(100 * part.low) // step)
        )


def _merged(bins: Sequence[CalibrationBin], low: int, step: int) -> CalibrationBin:
    """Bins as one, of `step` hundredths from `low` on."""
    n_masks = sum(part.n_masks for part in bins)
    return CalibrationBin(
        low=low / 100,
        high=(low + step) / 100,
        n_masks=n_masks,
        mean_score=sum(part.n_masks * part.mean_score for part in bins) / n_masks,
        mean_iou=sum(part.n_masks * part.mean_iou for part in bins) / n_masks,
    )


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What came of a comparison; the fields that its kind does not have are None.

    `fingerprint` is of the run's plan, `model` its name; a run that goes on is not complete.
    """

    kind: Kind
    out: str
    against: str
    fingerprint: str | None
    model: str | None
    is_complete: bool
    rank: Rank | None
    max_masks: tuple[int, ...] | None
    partners: PartnerCounts
    recall: tuple[AverageRecall, ...] | None = None
    regions: tuple[RegionScore, ...] | None = None
    comparison: Comparison | None = None
    edges: EdgeScore | None = None
    calibration: tuple[ScoreCalibration, ...] | None = None
    categories: tuple[CategoryScore, ...] | None = None

    @property
    def truth_name(self) -> str:
        """What it was compared with, in short."""
        return name_of(shown(_resolved(self.against))).removesuffix(".json") or "truth"

    @property
    def n_rows(self) -> int:
        """How many rows the run had then."""
        return self.partners.n_compared + len(self.partners.other_size) + self.partners.n_rows_alone

    @property
    def name(self) -> str:
        """Of the file that keeps it: the ground truth's, what it was compared as, and a digest.

        The digest is of where the ground truth is and of the options that matter, so that only
        the same comparison takes the place of an earlier one.
        """
        what = json.dumps([_resolved(self.against), self.rank, self.max_masks])
        digest = hashlib.sha256(what.encode()).hexdigest()[:_DIGITS]
        return f"{self.truth_name}-{self.kind}-{digest}"

    def to_json(self) -> bytes:
        """All of it, as indented JSON, without secrets; what is no number becomes null."""
        values = _kept(asdict(self)) | {"out": shown(self.out), "against": shown(self.against)}
        text = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False)
        return (text + "\n").encode()

    def keep(self) -> str:
        """Write it into the folder that was evaluated; gives where."""
        storage, name = open_patiently(self.out), f"{EVALUATION}/{self.name}.json"
        storage.write(name, self.to_json())
        return storage.url(name)


_EVALUATION = TypeAdapter(Evaluation)


def read_evaluations(storage: Storage, fingerprint: str) -> tuple[list[Evaluation], list[str]]:
    """What was kept of the plan with this fingerprint, by name; and what cannot be read, and why.

    Raises StorageError.
    """
    names = [f"{EVALUATION}/{n}" for n in sorted(storage.list(EVALUATION)) if n.endswith(".json")]
    found: list[Evaluation] = []
    problems: list[str] = []
    for name, data in zip(names, read_all(storage, names), strict=True):
        try:
            if data is None or not _is_of(data, fingerprint):
                continue
            evaluation = _EVALUATION.validate_json(data)
            if evaluation not in found:  # or it was written here twice, by --json
                found.append(evaluation)
        except ValidationError as error:
            (first, *_) = error.errors()
            field = ".".join(map(str, first["loc"]))
            problems.append(f"{name}: not what this version of amg eval writes ({field})")
        except ValueError as error:
            problems.append(f"{name}: not JSON: {error}")
    return found, problems


def _is_of(data: bytes, fingerprint: str) -> bool:
    values = json.loads(data)
    return isinstance(values, Mapping) and values.get("fingerprint") == fingerprint


def _resolved(location: str) -> str:
    if scheme_of(location):
        return location.rstrip("/")
    return str(Path(local_path(location)).expanduser().resolve())


def _kept(value: Any) -> Any:
    """The same for JSON, which knows only finite numbers, lists, and text that is valid."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return as_text(value)
    if isinstance(value, Mapping):
        return {str(key): _kept(item) for key, item in value.items()}
    return [_kept(item) for item in value] if isinstance(value, list | tuple) else value
