"""How good a run is: what to compare it with is seen from the path that is given."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from amg.errors import EvaluationError
from amg.evaluate.bsds import BsdsJudge
from amg.evaluate.bsds_truth import list_bsds
from amg.evaluate.calibration import calibrate
from amg.evaluate.coco import CocoImageScore, CocoJudge
from amg.evaluate.coco_truth import CocoTruth, read_coco
from amg.evaluate.edges import score_edge_maps
from amg.evaluate.partners import Partners, TruthName, find_partners
from amg.evaluate.precision import category_ids, summarise_precision
from amg.evaluate.ranking import Rank
from amg.evaluate.recall import parse_limits
from amg.evaluate.results import CategoryScore, Evaluation, Kind
from amg.evaluate.runs import RowPlace, RunJudge, compare_shard, summarise_comparisons
from amg.evaluate.shards import ImageScore, image_ids_by_file, score_run
from amg.runs.folder import PLAN
from amg.runs.results import RunResults, open_run
from amg.runs.watching import OnImages
from amg.storage.patient import open_patiently

Score = TypeVar("Score")


@dataclass(frozen=True, slots=True)
class Options:
    """How to compare: by which score masks are ranked, and how many of an image count.

    `workers` are processes that share the work; None: one for each core, where there is much.
    """

    rank: Rank = Rank.MEAN
    max_masks: Sequence[int] = (1, 10, 100, 1000)
    workers: int | None = 1


_DEFAULTS = Options()


def evaluate(
    run: str, against: str, options: Options = _DEFAULTS, watch: OnImages = lambda done, of: None
) -> Evaluation:
    """Compare a run, or a folder of edge maps, with a ground truth or another run.

    `watch` hears of images done, and of how many. Raises EvaluationError for what cannot be
    compared, and RunError, ShardError or StorageError for a run that cannot be read.
    """
    kind = recognise(against)
    if not _is_run(run):
        if kind != "bsds":
            raise EvaluationError(f"{run} holds no run: only edge maps against BSDS need none")
        return _evaluate_edges(run, against, options, watch)
    results = open_run(run)
    results.require_masks()
    judged = {"coco": _evaluate_coco, "bsds": _evaluate_bsds, "run": _evaluate_run}
    return judged[kind](_Work(results, image_ids_by_file(results), against, options, watch))


def recognise(against: str) -> Literal["coco", "bsds", "run"]:
    """What is at a path. Raises EvaluationError for what is none of these."""
    path = Path(against)
    if path.is_file() and path.suffix == ".json":
        return "coco"
    if not path.is_file() and _is_run(against):
        return "run"
    if path.is_dir() and list_bsds(path):
        return "bsds"
    raise EvaluationError(
        f"{against}: not a .json file of instances (COCO, LVIS), a folder with .mat files (BSDS), "
        "or the folder of a run"
    )


@dataclass(frozen=True, slots=True)
class _Work:
    """A run to be compared, the image ids in each of its files, and what with."""

    run: RunResults
    ids_by_file: Mapping[str, Sequence[str]]
    against: str
    options: Options
    watch: OnImages

    @property
    def image_ids(self) -> Iterator[str]:
        return (image_id for ids in self.ids_by_file.values() for image_id in ids)

    def score(self, partners: Partners[Any], judge: Any, **options: Any) -> list[ImageScore[Any]]:
        """Score all images that have a partner."""
        scores: list[ImageScore[Any]] = []
        n_images = len(partners.by_id)
        for done in score_run(
            self.run.address,
            self.ids_by_file,
            partners.by_id,
            judge,
            self.options.workers,
            **options,
        ):
            scores += done
            self.watch(len(scores), n_images)
        return scores

    def report(
        self,
        kind: Kind,
        partners: Partners[Any],
        images: Sequence[ImageScore[Any]],
        **scores: Any,
    ) -> Evaluation:
        other_size = [image.image_id for image in images if image.score is None]
        plan = self.run.plan
        ranks = kind != "run"
        return Evaluation(
            kind=kind,
            out=self.run.address,
            against=self.against,
            fingerprint=plan.fingerprint,
            model=plan.identity.get("model", {}).get("name"),
            is_complete=self.run.is_complete,
            rank=self.options.rank if ranks else None,
            max_masks=tuple(sorted(set(self.options.max_masks))) if ranks else None,
            partners=partners.counts(sum(image.has_failed for image in images), other_size),
            **scores,
        )


def _evaluate_coco(work: _Work) -> Evaluation:
    truth = read_coco(Path(work.against))
    names = [TruthName(image, image.name, image.image_id) for image in truth.images]
    partners = find_partners(work.image_ids, names)
    limits, ids = parse_limits(work.options.max_masks), dict[str, int]()
    if not truth.frequencies:  # LVIS has rules of its own: not every image is searched for each
        ids = category_ids(work.run.plan.categories, truth.categories)
    judge = CocoJudge(work.options.rank, limits, truth.frequencies, ids)
    images = work.score(partners, judge)
    scores = [image.score for image in images if image.score is not None]
    return work.report(
        "lvis" if truth.frequencies else "coco",
        partners,
        images,
        recall=tuple(judge.summarise(scores)),
        categories=_categories(scores, truth) if ids else None,
        calibration=tuple(calibrate([score.masks for score in scores])),
    )


def _categories(scores: Sequence[CocoImageScore], truth: CocoTruth) -> tuple[CategoryScore, ...]:
    return tuple(summarise_precision((score.detections for score in scores), truth.categories))


def _evaluate_bsds(work: _Work) -> Evaluation:
    partners = find_partners(work.image_ids, list_bsds(Path(work.against)))
    judge = BsdsJudge(work.options.rank, parse_limits(work.options.max_masks))
    images = work.score(partners, judge)
    scores = [image.score for image in images if image.score is not None]
    if not scores:
        raise EvaluationError(f"no image has the size of its drawings in {work.against}")
    return work.report(
        "bsds",
        partners,
        images,
        regions=tuple(judge.summarise(scores)),
        calibration=tuple(calibrate([score.masks for score in scores])),
    )


def _evaluate_run(work: _Work) -> Evaluation:
    other = open_run(work.against)
    other.require_masks()
    places = [
        TruthName(RowPlace(other.address, file, place), image_id)
        for file, image_ids in image_ids_by_file(other).items()
        for place, image_id in enumerate(image_ids)
    ]
    partners = find_partners(work.image_ids, places)
    images = work.score(partners, RunJudge(), score_file=compare_shard)
    scores = [image.score for image in images if image.score is not None]
    return work.report("run", partners, images, comparison=summarise_comparisons(scores))


def _evaluate_edges(out: str, against: str, options: Options, watch: OnImages) -> Evaluation:
    maps = {path.stem: path for path in sorted(Path(out).glob("*.png"))}
    if not maps:
        raise EvaluationError(f"{out} holds neither a run nor edge maps (.png)")
    partners = find_partners(maps, list_bsds(Path(against)))
    pairs = [(maps[image_id], truth) for image_id, truth in partners.by_id.items()]
    score = score_edge_maps(pairs, options.workers, watch)
    return Evaluation(
        kind="edges",
        out=out,
        against=against,
        fingerprint=None,
        model=None,
        is_complete=True,
        rank=None,
        max_masks=None,
        partners=partners.counts(),
        edges=score,
    )


def _is_run(path: str) -> bool:
    return open_patiently(path).size(PLAN) is not None
