"""Which image of the ground truth a row of a run is of."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from amg.errors import EvaluationError
from amg.evaluate.results import PartnerCounts

Truth = TypeVar("Truth")
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class TruthName(Generic[Truth]):
    """An image of the ground truth, the name of its file, and its number if it has one."""

    truth: Truth
    name: str
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Partners(Generic[Truth]):
    """The ground truth of those image ids that have one, and who is alone."""

    by_id: Mapping[str, Truth]
    rows_alone: tuple[str, ...]
    truth_alone: tuple[str, ...]

    def counts(self, n_failed: int = 0, other_size: Sequence[str] = ()) -> PartnerCounts:
        """What becomes of the images, for the report."""
        return PartnerCounts(
            n_compared=len(self.by_id) - len(other_size),
            n_failed=n_failed,
            n_rows_alone=len(self.rows_alone),
            n_truth_alone=len(self.truth_alone),
            rows_alone=self.rows_alone[:_SHOWN],
            truth_alone=self.truth_alone[:_SHOWN],
            other_size=tuple(other_size),
        )


def find_partners(image_ids: Iterable[str], truths: Sequence[TruthName[Truth]]) -> Partners[Truth]:
    """Match ids with names: equal, then the id is the number, then file names without suffix.

    File names that occur twice in the ground truth match nothing. Raises EvaluationError where two
    ids are of the same image, or no id matches.
    """
    finder = _Finder(truths)
    image_ids = list(image_ids)
    found = {image_id: index for image_id in image_ids if (index := finder.find(image_id)) >= 0}
    by_index: dict[int, str] = {}
    for image_id, index in found.items():
        if (other := by_index.setdefault(index, image_id)) != image_id:
            raise EvaluationError(
                f"{other!r} and {image_id!r} are both of the ground truth's {truths[index].name!r}"
            )
    if not found:
        raise EvaluationError(
            f"no image of the run is in the ground truth: here {_some(image_ids)}, "
            f"there {_some([truth.name for truth in truths])}"
        )
    return Partners(
        by_id={image_id: truths[index].truth for image_id, index in found.items()},
        rows_alone=tuple(image_id for image_id in image_ids if image_id not in found),
        truth_alone=tuple(t.name for index, t in enumerate(truths) if index not in by_index),
    )


class _Finder(Generic[Truth]):
    def __init__(self, truths: Sequence[TruthName[Truth]]) -> None:
        numbers = [str(truth.number) for truth in truths if truth.number is not None]
        self._by_key = [
            _only_once(truth.name for truth in truths),
            _only_once(numbers) if len(numbers) == len(truths) else {},
            _only_once(_stem(truth.name) for truth in truths),
        ]

    def find(self, image_id: str) -> int:
        keys = (image_id, image_id, _stem(image_id))
        places = (names.get(key, -1) for names, key in zip(self._by_key, keys, strict=True))
        return next((place for place in places if place >= 0), -1)


def _only_once(keys: Iterable[str]) -> dict[str, int]:
    """Where each key is, without those that occur twice."""
    keys = list(keys)
    counts = Counter(keys)
    return {key: place for place, key in enumerate(keys) if counts[key] == 1}


def _stem(name: str) -> str:
    """`val/0001.jpg` and `shard.tar::val/0001.jpg` are both `0001`."""
    base = name.rpartition("::")[2].rpartition("/")[2]
    return base.rpartition(".")[0] or base


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_SHOWN])
    return (shown or "none") + (", ..." if len(names) > _SHOWN else "")
