"""`amg eval` and `amg edges`: how good masks are, and what SAM's edge protocol needs."""

from pathlib import Path
from typing import Annotated

import typer

from amg.cli.answers import say, show_table
from amg.cli.options import (
    EXIT_SOME_FAILED,
    CheckpointOption,
    DeviceOption,
    InputsArgument,
    ModelOption,
    ProcessesOption,
    SetOption,
    errors,
    resolve_config,
)
from amg.cli.progress import CountDisplay
from amg.errors import ConfigError, OutputError, StorageError
from amg.evaluate.ranking import Rank
from amg.evaluate.results import Evaluation
from amg.evaluate.table import calibration_listing, notes, result_listings


def evaluate(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run's folder or URL; or one of `amg edges`.")
    ],
    against: Annotated[
        str,
        typer.Option(help="Instances of COCO or LVIS (.json), a folder of BSDS500, another run."),
    ],
    rank: Annotated[
        Rank, typer.Option(help="The score by which masks are ranked; mean: of both.")
    ] = Rank.MEAN,
    max_masks: Annotated[
        str, typer.Option(help="How many masks of an image count; all are counted beside.")
    ] = "1,10,100,1000",
    workers: ProcessesOption = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Where to write the result besides.")
    ] = None,
) -> None:
    """Say how good a run's masks are, and keep it in RUN/evaluation."""
    try:
        from amg.evaluate.evaluation import Options, evaluate  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise ConfigError(f"amg eval needs {error.name}: `pip install '.[eval]'`") from error

    options = Options(rank, _parse_max_masks(max_masks), workers)
    with CountDisplay(errors) as display:
        evaluation = evaluate(run, against, options, display.update)
    _print(evaluation)
    if json_path is not None:
        _write(json_path, evaluation.to_json())
    try:
        errors.print(f"Kept in {evaluation.keep()}", markup=False, soft_wrap=True)
    except (OutputError, StorageError) as error:
        if json_path is None:
            raise
        warning = f"warning: not kept in the run's folder: {error}"
        errors.print(warning, markup=False, soft_wrap=True)


def edges(
    photos: InputsArgument,
    out: Annotated[Path, typer.Option("--out", help="Folder for one PNG a photo.")],
    model: ModelOption = None,
    checkpoint: CheckpointOption = None,
    device: DeviceOption = None,
    set_: SetOption = None,
) -> None:
    """Draw edges by SAM's zero-shot protocol, for `amg eval FOLDER --against BSDS500`."""
    from amg.inputs.sources import list_sources  # noqa: PLC0415 - torch only when needed
    from amg.runs.folder import REPORT_PAGES  # noqa: PLC0415
    from pipelines.edges import PROTOCOL, draw_edges  # noqa: PLC0415

    named = {"name": model, "checkpoint": checkpoint, "device": device}
    config = resolve_config(None, [*PROTOCOL, *(set_ or ())], model=named)
    sources = list(list_sources(photos, passed_over=REPORT_PAGES))
    n_left_out = 0
    with CountDisplay(errors) as display:
        for done, photo in enumerate(draw_edges(config, sources, out), start=1):
            n_left_out += photo.problem is not None
            text = f"warning: left out: {photo.problem}" if photo.problem else str(photo.path)
            errors.print(text, markup=False, soft_wrap=True)
            display.update(done, len(sources), "photos")
    if n_left_out:
        errors.print(f"{n_left_out} of {len(sources)} photos have no edge map")
        raise typer.Exit(EXIT_SOME_FAILED)


def _print(evaluation: Evaluation) -> None:
    for note in notes(evaluation):
        say(note)
    listings = [*result_listings(evaluation)]
    if evaluation.calibration is not None:
        listings.append(calibration_listing(evaluation.calibration))
    for listing in listings:
        say("")
        show_table(listing.head, listing.rows)


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def _parse_max_masks(text: str) -> list[int]:
    """`1,10,100` as numbers. Raises ConfigError."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--max-masks {text!r}: expected numbers, e.g. 1,10,100") from None
    if min(numbers) < 1:
        raise ConfigError(f"--max-masks {text!r}: expected numbers from 1 on")
    return numbers
