"""What commands share: their options, how errors end them, and the configuration they make."""

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from amg.config import Config, load_config
from amg.errors import (
    AmgError,
    BlockedRunError,
    ConfigError,
    InterruptedRunError,
    OutputError,
    StorageError,
)
from amg.runs.folder import SUCCESS
from amg.shadow import require_our_pipelines
from amg.storage.stores import open_storage

EXIT_USAGE = 2
EXIT_SOME_FAILED = 3
EXIT_INCOMPLETE = 4  # the same command goes on
EXIT_STORAGE = 5
EXIT_BLOCKED = 6  # no command goes on until somebody mends what is named

errors = Console(stderr=True, highlight=False, emoji=False)

INPUTS_HELP = "Images, folders, globs, lists (.txt), tables (.parquet), tars; or URLs."
InputsArgument = Annotated[list[str], typer.Argument(help=INPUTS_HELP)]
OutOption = Annotated[str, typer.Option("--out", help="Folder or URL for the result.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's folder or URL.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer with one JSON object.")]
SliceOption = Annotated[
    str | None, typer.Option("--slice", help="I/N: only every N-th shard, from the I-th.")
]
OverwriteOption = Annotated[bool, typer.Option(help="Delete the run that OUT holds.")]
YesOption = Annotated[
    bool, typer.Option("--yes", "-y", help="With --overwrite: delete a finished run, unasked.")
]
ModelOption = Annotated[str | None, typer.Option("--model", help="Which model; see `amg models`.")]
CheckpointOption = Annotated[
    str | None,
    typer.Option(
        help="Weights: a file, a folder of Hugging Face's, or hf:owner/name. Without --model they "
        "say themselves what they are."
    ),
]
DeviceOption = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, mps (untested); default: GPU if any.")
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(help="float32 (exact); tf32, bf16 or fp16: faster, but masks change a little."),
]
MemoryBudgetOption = Annotated[
    str | None,
    typer.Option(
        help="Bytes, e.g. 2GB, for prompts and masks in flight; default: a quarter of what is free."
    ),
]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="A YAML file; see configs/.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="One value, e.g. generator.points_per_side=16. Repeatable."),
]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Only the first N images.")]
IdColumnOption = Annotated[str | None, typer.Option(help="Of tables: the column of image ids.")]
UriColumnOption = Annotated[str | None, typer.Option(help="Of tables: the column of locations.")]
ImageColumnOption = Annotated[
    str | None, typer.Option(help="Of tables: the column of image files' bytes.")
]
OnDuplicateOption = Annotated[
    str | None,
    typer.Option(help="Images with the same id: refuse, skip later ones, or number them: #2, #3."),
]
AllowOption = Annotated[
    list[str] | None,
    typer.Option(
        help="What paths and URLs in lists and tables have to begin with. Repeatable. Default: all "
        "that a list names; of a table what is in its folder, or remote."
    ),
]
RemapOption = Annotated[
    list[str] | None,
    typer.Option(help="OLD=NEW: what was planned below OLD is below NEW now. Repeatable."),
]
PromptsOption = Annotated[
    str | None,
    typer.Option(
        "--prompts",
        help="Ask these boxes and points instead of a grid: COCO JSON, a table (.parquet, .csv, "
        ".jsonl), a folder of YOLO labels, or a run, whose masks' boxes are asked.",
    ),
]
EngineOption = Annotated[str | None, typer.Option(help="local (processes here) or ray.")]
AddressOption = Annotated[
    str | None,
    typer.Option(
        help="Of a Ray cluster; default: the one that Ray knows, as within a job; or Ray here."
    ),
]
WorkersOption = Annotated[
    str | None, typer.Option(help="How many, e.g. 4; or MIN:MAX, added as resources appear.")
]
ProcessesOption = Annotated[
    int | None,
    typer.Option(
        "--workers", min=1, help="Processes that share the work; default: by cores, 8 at most."
    ),
]
CpusOption = Annotated[float | None, typer.Option(min=0, help="CPUs that Ray gives a worker.")]
GpusOption = Annotated[
    float | None, typer.Option(min=0, help="GPUs that Ray gives a worker; 0.5 shares one.")
]
MaxFailureRateOption = Annotated[
    float | None, typer.Option(min=0, max=1, help="Stop when a larger share of images failed.")
]
AcceptFailuresOption = Annotated[
    float,
    typer.Option(
        min=0, max=1, metavar="RATE", help="Exit with 0 where no larger share of images failed."
    ),
]


def reports_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn our errors into one line and an exit code; anything else is a bug and shows as one."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            _call(command, *args, **kwargs)
        except AmgError as error:
            errors.print("[bold red]error:[/]", end=" ")
            errors.print(str(error), markup=False, soft_wrap=True)
            raise typer.Exit(_exit_code(error)) from None

    return run


def _call(command: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    try:
        command(*args, **kwargs)
    except ImportError:
        require_our_pipelines()  # it says more, where another's were found
        raise


def _exit_code(error: AmgError) -> int:
    if isinstance(error, InterruptedRunError):
        return EXIT_INCOMPLETE
    if isinstance(error, BlockedRunError):
        return EXIT_BLOCKED
    return EXIT_STORAGE if isinstance(error, OutputError | StorageError) else EXIT_USAGE


def resolve_config(
    path: Path | None, overrides: list[str] | None, **sections: dict[str, Any]
) -> Config:
    """The file, then `--set`, then the options that have a name of their own."""
    return with_options(load_config(path, overrides or ()), **sections)


def with_options(config: Config, **sections: dict[str, Any]) -> Config:
    """Put options that were given (not None) over sections of a configuration."""
    tree = config.model_dump(exclude_unset=True)
    for section, options in sections.items():
        given = {key: value for key, value in options.items() if value is not None}
        tree[section] = {**tree.get(section, {}), **given}
    return Config(**tree)


def confirm_overwrite(out: str, yes: bool) -> None:
    """Ask before a finished run is deleted. Raises ConfigError where nobody can be asked."""
    storage = open_storage(out)
    if yes or storage.size(SUCCESS) is None:
        return
    what = f"{storage.url()} holds a finished run"
    if not _can_ask():
        raise ConfigError(f"--overwrite: {what}; give --yes too to delete it")
    if not typer.confirm(f"{what}. Delete it?", err=True):
        errors.print("nothing was deleted")
        raise typer.Exit(EXIT_USAGE)


def _can_ask() -> bool:
    return sys.stdin.isatty() and errors.is_terminal


def parse_workers(text: str | None) -> dict[str, int]:
    """`4` or `2:8` as keys of the engine's configuration. Raises ConfigError."""
    if text is None:
        return {}
    low, separator, high = text.partition(":")
    try:
        most = int(high if separator else low)
        least = int(low or 1) if separator else 1
    except ValueError:
        raise ConfigError(f"--workers {text!r}: expected a number or MIN:MAX") from None
    if not 1 <= least <= most:
        raise ConfigError(f"--workers {text!r}: expected 1 <= MIN <= MAX")
    return {"min_workers": least, "max_workers": most}


def parse_slice(text: str | None) -> tuple[int, int]:
    """`1/4`, the first of four, as (0, 4). Raises ConfigError."""
    if text is None:
        return 0, 1
    index, _, count = text.partition("/")
    try:
        number, of = int(index), int(count)
    except ValueError:
        raise ConfigError(f"--slice {text!r}: expected I/N, e.g. 1/4") from None
    if not 1 <= number <= of:
        raise ConfigError(f"--slice {text!r}: expected 1 <= I <= N")
    return number - 1, of
