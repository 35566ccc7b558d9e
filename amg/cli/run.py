"""`amg run`, `amg plan` and `amg retry-failed`: what starts work."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from amg.cli.options import (
    EXIT_INCOMPLETE,
    EXIT_SOME_FAILED,
    AddressOption,
    AllowOption,
    CheckpointOption,
    ConfigOption,
    CpusOption,
    DeviceOption,
    EngineOption,
    GpusOption,
    IdColumnOption,
    ImageColumnOption,
    InputsArgument,
    LimitOption,
    MaxFailureRateOption,
    MemoryBudgetOption,
    ModelOption,
    OnDuplicateOption,
    OutOption,
    PrecisionOption,
    RemapOption,
    RunArgument,
    SetOption,
    UriColumnOption,
    WorkersOption,
    errors,
    parse_slice,
    parse_workers,
    resolve_config,
    with_options,
)
from amg.cli.progress import RunDisplay
from amg.config import Config
from amg.errors import ConfigError
from amg.inputs.sources import SourceOptions
from amg.storage.urls import shown

if TYPE_CHECKING:
    from pipelines.corpus.run import RunReport

ProgressOption = Annotated[
    str | None, typer.Option("--progress", help="bar, lines, json or none; default: as it fits.")
]
MetricsOption = Annotated[
    int | None, typer.Option("--metrics-port", help="Serve Prometheus metrics on this port.")
]


def run(
    inputs: InputsArgument,
    out: OutOption,
    model: ModelOption = None,
    checkpoint: CheckpointOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    memory_budget: MemoryBudgetOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    limit: LimitOption = None,
    id_column: IdColumnOption = None,
    uri_column: UriColumnOption = None,
    image_column: ImageColumnOption = None,
    on_duplicate: OnDuplicateOption = None,
    allow: AllowOption = None,
    remap: RemapOption = None,
    engine: EngineOption = None,
    address: AddressOption = None,
    workers: WorkersOption = None,
    cpus_per_worker: CpusOption = None,
    gpus_per_worker: GpusOption = None,
    max_failure_rate: MaxFailureRateOption = None,
    keep_candidates: Annotated[
        bool, typer.Option("--keep-candidates", help="Keep what NMS chose from, for amg refilter.")
    ] = False,
    slice_: Annotated[
        str | None, typer.Option("--slice", help="I/N: only every N-th shard, from the I-th.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Delete the run that OUT holds.")] = False,
    progress: ProgressOption = None,
    metrics_port: MetricsOption = None,
) -> None:
    """Segment images; write one row for each to Parquet shards under OUT. Resumes what OUT holds.

    Exit codes: 0 all images done, 3 done but some failed (their rows say why), 4 incomplete: run
    again to go on, 2 bad usage, 5 the storage failed.
    """
    from pipelines.corpus.run import Run  # noqa: PLC0415 - the library works without pipelines

    resolved = resolve_config(
        config,
        set_,
        model={
            "name": model,
            "checkpoint": checkpoint,
            "device": device,
            "precision": precision,
        },
        generator={"memory_budget": memory_budget, "keep_candidates": keep_candidates or None},
        run={
            "max_failure_rate": max_failure_rate,
            "on_duplicate": on_duplicate,
            "allow": allow or None,
        },
        engine=_engine(engine, address, workers, cpus_per_worker, gpus_per_worker),
    )
    if overwrite and slice_ is not None:
        raise ConfigError("--overwrite, --slice: give one; the run belongs to all its slices")
    options = SourceOptions(id_column, uri_column, image_column)
    job = Run(
        inputs,
        out,
        resolved,
        options=options,
        limit=limit,
        remap=remap or (),
        overwrite=overwrite,
        slice_=parse_slice(slice_),
    )
    with RunDisplay(errors, progress) as display:
        report = job.execute(_watch(display, metrics_port))
    conclude(report, out)


def retry_failed(
    out: RunArgument,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(help="The run's inputs, with signatures that hold now, or moved."),
    ] = None,
    limit: LimitOption = None,
    id_column: IdColumnOption = None,
    uri_column: UriColumnOption = None,
    image_column: ImageColumnOption = None,
    allow: AllowOption = None,
    remap: RemapOption = None,
    device: DeviceOption = None,
    engine: EngineOption = None,
    address: AddressOption = None,
    workers: WorkersOption = None,
    progress: ProgressOption = None,
) -> None:
    """Do the images again whose rows say that they failed; all other rows stay as they are."""
    from pipelines.corpus.run import retry_failed as retry  # noqa: PLC0415

    def change(config: Config) -> Config:
        wanted = _engine(engine, address, workers, None, None)
        run = {"allow": allow or None}
        return with_options(config, model={"device": device}, run=run, engine=wanted)

    with RunDisplay(errors, progress) as display:
        report = retry(
            out,
            inputs=inputs,
            options=SourceOptions(id_column, uri_column, image_column),
            limit=limit,
            remap=remap or (),
            change=change,
            watch=display.update,
        )
    conclude(report, out)


def plan(
    inputs: InputsArgument,
    model: ModelOption = None,
    checkpoint: CheckpointOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    limit: LimitOption = None,
    id_column: IdColumnOption = None,
    uri_column: UriColumnOption = None,
    image_column: ImageColumnOption = None,
    on_duplicate: OnDuplicateOption = None,
    allow: AllowOption = None,
    seconds_per_image: Annotated[
        float | None, typer.Option(min=0, help="For the estimate: what a worker needs.")
    ] = None,
) -> None:
    """Say what a run would do: images, shards, bytes, time. Nothing is written or segmented."""
    from pipelines.corpus.listing import Job  # noqa: PLC0415
    from pipelines.corpus.plan import survey  # noqa: PLC0415

    resolved = resolve_config(
        config,
        set_,
        model={"name": model, "checkpoint": checkpoint},
        run={"on_duplicate": on_duplicate, "allow": allow or None},
    )
    job = Job(inputs, resolved, SourceOptions(id_column, uri_column, image_column), limit)
    listing, resolved = survey(job)
    size = resolved.run.images_per_shard
    n_shards = -(-listing.n_images // size)
    unknown = f" ({listing.n_unknown} of unknown size)" if listing.n_unknown else ""
    echo = errors.print
    echo(f"{listing.n_images} images, {listing.n_bytes / 1e6:.1f} MB{unknown}")
    if listing.n_later:
        echo(f"{listing.n_later} ids were there before: {resolved.run.on_duplicate}")
    echo(f"{n_shards} shards of {size} images (run.images_per_shard)")
    points = resolved.generator.points_per_side
    grid = f"{points} x {points} points" if points else "explicit points"
    echo(f"{resolved.model.name}, {grid}, {resolved.generator.crop_n_layers} layers of crops")
    if seconds_per_image:
        hours = listing.n_images * seconds_per_image / 3600
        echo(f"about {hours:.1f} hours on one worker, at {seconds_per_image:g} s an image")
    else:
        echo("time: run a few (--limit 20), then give --seconds-per-image")


def _engine(
    engine: str | None,
    address: str | None,
    workers: str | None,
    cpus: float | None,
    gpus: float | None,
) -> dict[str, Any]:
    named = {"name": engine, "address": address, "cpus_per_worker": cpus, "gpus_per_worker": gpus}
    return {**named, **parse_workers(workers)}


def _watch(display: RunDisplay, metrics_port: int | None) -> Any:
    if metrics_port is None:
        return display.update
    from pipelines.corpus.metrics import serve_metrics  # noqa: PLC0415

    measure = serve_metrics(metrics_port)

    def watch(state: Any) -> None:
        display.update(state)
        measure(state)

    return watch


def conclude(report: "RunReport", out: str) -> None:
    """Say what has become of a run, and exit with the code for it."""
    describe(report)
    place = shown(out)
    if not report.session_is_done:
        errors.print(
            f"incomplete; run the same command again to go on: {place}",
            markup=False,
            soft_wrap=True,
        )
        raise typer.Exit(EXIT_INCOMPLETE)
    what = place if report.is_complete else f"this slice is done, others are not yet: {place}"
    errors.print(what, markup=False, soft_wrap=True)
    if report.tally.failed:
        raise typer.Exit(EXIT_SOME_FAILED)


def describe(report: "RunReport") -> None:
    """Print a report."""
    tally = report.tally
    counts = ", ".join(f"{n} {status}" for status, n in sorted(tally.statuses.items()))
    errors.print(
        f"{tally.images} of {report.n_images} images ({counts or 'none'}), {tally.masks} masks; "
        f"{report.n_committed} of {report.n_shards} shards"
    )
    if report.refiltered_from is not None:
        how = ", approximately: a fresh run's masks may differ" if report.is_approximate else ""
        errors.print(f"refiltered from run {report.refiltered_from}{how}")
    if report.session_images:
        rate = report.session_images / report.session_s
        errors.print(
            f"{report.session_images} images in {report.session_s:.1f} s ({rate:.2f} images/s)"
        )
    for shard, reason in report.failed_shards.items():
        errors.print(f"shard {shard} failed: {reason}", markup=False, soft_wrap=True)
    if report.stopped:
        errors.print(f"stopped: {report.stopped}", markup=False, soft_wrap=True)
