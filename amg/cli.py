"""The command line: `amg run`, `amg show`, `amg models`. Thin: the work is elsewhere."""

import logging
import sys
import time
from collections.abc import Callable
from functools import wraps
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from amg.config import Config, load_config
from amg.errors import AmgError, ImageError, OutputError

EXIT_SOME_FAILED = 3
EXIT_USAGE = 2
EXIT_STORAGE = 5
_LINE_EVERY_S = 10

app = typer.Typer(
    help="Segment everything in every image, and keep the result.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_errors = Console(stderr=True, highlight=False)

ModelOption = Annotated[str | None, typer.Option("--model", help="Which model; see `amg models`.")]
CheckpointOption = Annotated[
    Path | None, typer.Option(help="Weights, instead of the model's own: .pth, .pt, .safetensors.")
]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; default: GPU if any.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="A YAML file; see configs/.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="One value, e.g. generator.points_per_side=16. Repeatable."),
]


def _report_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn our errors into one line and an exit code; anything else is a bug and shows as one."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except AmgError as error:
            _errors.print(f"[bold red]error:[/] {type(error).__name__}:", end=" ")
            _errors.print(str(error), markup=False)
            raise typer.Exit(
                EXIT_STORAGE if isinstance(error, OutputError) else EXIT_USAGE
            ) from None

    return run


@app.command()
@_report_errors
def run(
    inputs: Annotated[list[Path], typer.Argument(help="Image files and folders of them.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the result.")],
    model: ModelOption = None,
    checkpoint: CheckpointOption = None,
    device: DeviceOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N images.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the shards of an earlier run.")] = False,
) -> None:
    """Segment images; write one row for each to Parquet shards under OUT/data.

    Exit codes: 0 all images done, 3 some could not be read (their rows say why), 2 bad usage,
    5 the output could not be written.
    """
    from pipelines.driver import Run  # noqa: PLC0415 - the library works without pipelines

    resolved = _resolve_config(config, set_, model, checkpoint, device)
    job = Run(inputs, out, resolved, limit=limit, overwrite=overwrite)
    with _RunProgress(len(job.sources)) as progress:
        report = job.execute(progress.update)
    rate = report.images / report.seconds if report.seconds else 0.0
    counts = ", ".join(f"{n} {status}" for status, n in sorted(report.statuses.items()))
    _errors.print(
        f"{report.images} images ({counts}), {report.masks} masks in {report.seconds:.1f} s "
        f"({rate:.2f} images/s): {out / 'data'}"
    )
    if report.failed:
        raise typer.Exit(EXIT_SOME_FAILED)


@app.command()
@_report_errors
def show(
    image: Annotated[Path, typer.Argument(help="An image file.")],
    out: Annotated[Path, typer.Option("--out", help="The PNG to write.")],
    model: ModelOption = None,
    checkpoint: CheckpointOption = None,
    device: DeviceOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    side_by_side: Annotated[bool, typer.Option(help="The image beside its overlay.")] = False,
) -> None:
    """Segment one image and draw its masks over it."""
    from amg.io.images import decode_image, read_bytes  # noqa: PLC0415 - only when needed
    from amg.view.overlay import draw_overlay, draw_side_by_side  # noqa: PLC0415
    from pipelines.driver import make_generator  # noqa: PLC0415

    resolved = _resolve_config(config, set_, model, checkpoint, device)
    try:
        rgb = decode_image(read_bytes(image), max_pixels=resolved.run.max_image_pixels).rgb
    except ImageError as error:
        raise ImageError(error.status, f"{image}: {error}") from error
    generator = make_generator(resolved)
    masks = generator.generate(rgb).masks
    picture = (draw_side_by_side if side_by_side else draw_overlay)(rgb, masks)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(out, format="PNG")
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error}") from error
    _errors.print(f"{len(masks)} masks: {out}")


@app.command()
@_report_errors
def models() -> None:
    """List the models, and where their weights are looked for."""
    from amg.models.registry import MODELS  # noqa: PLC0415 - torch only when needed

    table = Table("name", "what it is", "weights")
    for spec in MODELS.values():
        table.add_row(spec.name, spec.description, spec.where())
    Console().print(table)


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")] = False,
) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("amg.models").setLevel(logging.INFO)  # downloads take minutes: say so
    if version:
        Console().print(package_version("amg"))
        raise typer.Exit


def _resolve_config(
    path: Path | None,
    overrides: list[str] | None,
    model: str | None,
    checkpoint: Path | None,
    device: str | None,
) -> Config:
    """The file, then `--set`, then the options that have a name of their own."""
    config = load_config(path, overrides or ())
    named = {"name": model, "checkpoint": checkpoint, "device": device}
    given = {key: value for key, value in named.items() if value is not None}
    return config.model_copy(update={"model": config.model.model_copy(update=given)})


class _RunProgress:
    """A bar on a terminal; a line every ten seconds elsewhere."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = self._masks = self._failed = 0
        self._started = self._said = time.monotonic()
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("segmenting"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[masks]} masks, {task.fields[failed]} failed"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=_errors,
            disable=not _errors.is_terminal,
        )
        self._task = self._bar.add_task("run", total=total, masks=0, failed=0)

    def __enter__(self) -> "_RunProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, row: Any) -> None:
        """Count a finished row."""
        from amg.io.schema import FAILED  # noqa: PLC0415 - arrow only when needed

        self._done += 1
        self._masks += len(row.masks)
        self._failed += row.status in FAILED
        self._bar.update(self._task, advance=1, masks=self._masks, failed=self._failed)
        now = time.monotonic()
        if not _errors.is_terminal and now - self._said >= _LINE_EVERY_S:
            self._said = now
            rate = self._done / (now - self._started)
            _errors.print(
                f"{self._done}/{self._total} images, {rate:.2f} images/s, "
                f"{self._masks} masks, {self._failed} failed"
            )


if __name__ == "__main__":
    sys.exit(app())
