"""`amg report`, top to bottom: add up the run, choose images, write their files, then the page.

The folder is static, and whole or not there: it is built beside its place and moved.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from amg.errors import ConfigError, OutputError
from amg.evaluate.ranking import Rank
from amg.evaluate.results import Evaluation, read_evaluations
from amg.evaluate.table import Listing, notes, result_listings
from amg.runs.events import RunTimes, read_times
from amg.runs.folder import PAGE, Commit, Plan, read_commits, require_masks, require_plan
from amg.runs.shards import read_metadata
from amg.runs.watching import OnItems
from amg.storage.patient import open_patiently
from amg.storage.stores import Storage
from amg.storage.urls import local_path, scheme_of, shown
from amg.view.report import DEFAULT_IMAGES, words
from amg.view.report.calibration import draw_calibration
from amg.view.report.charts import draw_charts
from amg.view.report.gallery import Item, write_gallery
from amg.view.report.plots import Chart
from amg.view.report.sampling import Choice, choose, n_extremes
from amg.view.report.summary import Summary, summarize

_PAGE = "index.html"
_ASSETS = ("report.css", "report.js")
_TEMPLATES = Path(__file__).parent / "templates"
_MARK = '<meta name="generator" content="amg report">'
"""By this a folder is known for a report, which may be replaced."""

_KINDS = {"coco": "COCO", "lvis": "LVIS", "bsds": "BSDS500", "run": "a run"}
_RANKS = {
    Rank.PREDICTED_IOU: "predicted IoU",
    Rank.STABILITY: "stability score",
    Rank.MEAN: "the mean of predicted IoU and stability score",
}


@dataclass(frozen=True, slots=True)
class Report:
    """A report that was written: `n_shown` of `n_images` images, `n_unreadable` without picture."""

    page: Path
    n_images: int
    n_shown: int
    n_unreadable: int


@dataclass(frozen=True, slots=True)
class _Judged:
    """An evaluation as the page shows it."""

    title: str
    against: str
    notes: list[str]
    listings: list[Listing]
    charts: list[Chart]


def write_report(
    run: str | os.PathLike[str],
    folder: str | os.PathLike[str] | None = None,
    n_images: int = DEFAULT_IMAGES,
    watch: OnItems = lambda done, of, what: None,
) -> Report:
    """Write the report of a run, finished or not, to `folder`; default: RUN/report if it is local.

    What `amg eval` has kept in the folder is shown too. Raises RunError for a folder without a
    plan, ShardError for damaged shards, StorageError where the run cannot be read, ConfigError and
    OutputError for a folder that cannot be used.
    """
    storage = open_patiently(run)
    plan = require_plan(storage)
    require_masks(plan, storage.url())
    target = _target(storage, folder)
    commits = read_commits(storage, plan)
    evaluations, problems = read_evaluations(storage, plan.fingerprint)
    summary = summarize(storage, plan, commits, n_extremes(n_images), watch)
    committed = [plan.shard_rows(shard) for shard in commits]
    choice = choose(committed, summary.extremes, n_images)
    try:
        with _replaced(target) as building:
            items = write_gallery(building, storage, plan, commits, choice, watch)
            page = _render(storage, plan, commits, summary, choice, items, evaluations, problems)
            (building / _PAGE).write_text(page, encoding="utf-8")
            for name in _ASSETS:
                shutil.copyfile(_TEMPLATES / name, building / name)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {error.strerror or error}") from error
    n_unreadable = sum(item.note is not None for item in items)
    return Report(target / _PAGE, summary.n_images, len(items), n_unreadable)


def _target(storage: Storage, folder: str | os.PathLike[str] | None) -> Path:
    """Where the report goes. Raises ConfigError for no local place, OutputError for one in use."""
    if folder is None:
        if storage.local_folder is None:
            raise ConfigError(
                f"--out: give a folder here; the run is on a storage, {storage.url()}"
            )
        target = storage.local_folder / PAGE
    elif scheme_of(os.fspath(folder)):
        raise ConfigError(f"--out {shown(os.fspath(folder))!r}: a report goes to a local folder")
    else:
        target = Path(local_path(os.fspath(folder))).expanduser().absolute()
    if target.exists() and not _may_be_replaced(target):
        raise OutputError(f"{target} is there and is no report: take another folder")
    return target


def _may_be_replaced(target: Path) -> bool:
    """Whether this is an empty folder, or a report of ours."""
    if not target.is_dir():
        return False
    try:
        return _MARK in (target / _PAGE).read_text(encoding="utf-8")[:2000]
    except FileNotFoundError:
        return not any(target.iterdir())
    except (OSError, UnicodeDecodeError):
        return False


@contextmanager
def _replaced(target: Path) -> Iterator[Path]:
    """A new folder that takes the place of `target` at the end, if nothing went wrong."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
        building = Path(scratch) / "new"
        building.mkdir()
        yield building
        if target.exists():
            target.rename(Path(scratch) / "old")
        building.rename(target)


def _render(
    storage: Storage,
    plan: Plan,
    commits: Mapping[int, Commit],
    summary: Summary,
    choice: Choice,
    items: list[Item],
    evaluations: Sequence[Evaluation],
    problems: Sequence[str],
) -> str:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": words.whole_number,
        "percent": words.percent,
        "seconds": words.seconds,
        "moment": words.moment,
        "short": words.short_number,
    }
    environment.globals["many"] = words.many
    times = read_times(storage)
    return environment.get_template(_PAGE).render(
        name=storage.url().rstrip("/").rpartition("/")[2],
        plan=plan,
        summary=summary,
        times=times,
        charts=draw_charts(summary),
        evaluations=[_judged(i, e, summary.n_images) for i, e in enumerate(evaluations)],
        problems=problems,
        choice=choice,
        items=items,
        n_unreadable=sum(item.note is not None for item in items),
        is_complete=len(commits) == plan.n_shards,
        facts=_facts(storage, plan, commits, times),
        parameters=_parameters(plan.identity["generator"]),
        version=version("amg"),
        made=time.time(),
    )


def _judged(number: int, evaluation: Evaluation, n_rows: int) -> _Judged:
    charts = [
        draw_calibration(f"{score.score}-{number}", score) for score in evaluation.calibration or ()
    ]
    title = f"{evaluation.truth_name} ({_KINDS[evaluation.kind]})"
    if evaluation.rank is not None:
        title += f", masks ranked by {_RANKS[evaluation.rank]}"
    return _Judged(
        title=title,
        against=shown(evaluation.against),
        notes=_notes(evaluation, n_rows),
        listings=list(result_listings(evaluation)),
        charts=[chart for chart in charts if chart is not None],
    )


def _notes(evaluation: Evaluation, n_rows: int) -> list[str]:
    """What to know of an evaluation of a run that has `n_rows` now."""
    said = list(notes(evaluation))
    if evaluation.n_rows != n_rows:
        said.append(f"The run had {words.many(evaluation.n_rows, 'row')} then; evaluate again.")
    return said


def _facts(
    storage: Storage, plan: Plan, commits: Mapping[int, Commit], times: RunTimes
) -> list[tuple[str, str]]:
    """How the run was made, a name and a value each."""
    model = plan.identity["model"]
    facts = [
        ("Model", model["name"]),
        ("Weights, sha256", model["weights_sha256"]),
        ("Precision", model["precision"]),
        ("Input size", f"{model['imgsz']} px" if model["imgsz"] else "the model's own"),
        ("Made with amg", _version(storage, commits)),
        ("Folder of the run", storage.url()),
        ("Run", plan.run_id),
    ]
    if times.began is not None and times.ended is not None:
        facts += [
            ("Begun", words.moment(times.began)),
            ("Last at work", words.moment(times.ended)),
            ("Time at work", words.seconds(times.worked_s)),
        ]
    return facts


def _version(storage: Storage, commits: Mapping[int, Commit]) -> str:
    """The version that wrote the first shard."""
    for commit in commits.values():
        with storage.open(commit.file) as file:
            return read_metadata(file, commit.file).get("amg.version", "unknown")
    return "nothing yet"


def _parameters(generator: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The generator's parameters, as they are written in a configuration."""
    words_of = {None: "none", True: "yes", False: "no"}
    return [
        (name, words_of[value] if value is None or isinstance(value, bool) else str(value))
        for name, value in generator.items()
    ]
