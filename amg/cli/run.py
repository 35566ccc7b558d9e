"""`amg run` and `amg retry-failed`: what starts work."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from amg.cli.answers import describe_prompts
from amg.cli.options import (
    EXIT_INCOMPLETE,
    EXIT_SOME_FAILED,
    INPUTS_HELP,
    AcceptFailuresOption,
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
    LimitOption,
    MaxFailureRateOption,
    MemoryBudgetOption,
    ModelOption,
    OnDuplicateOption,
    OutOption,
    OverwriteOption,
    PrecisionOption,
    PromptsOption,
    RemapOption,
    RunArgument,
    SetOption,
    SliceOption,
    UriColumnOption,
    WorkersOption,
    YesOption,
    confirm_overwrite,
    errors,
    parse_slice,
    parse_workers,
    resolve_config,
    with_options,
)
from amg.cli.progress import RunDisplay
from amg.config import Config, override
from amg.errors import ConfigError
from amg.inputs.sources import SourceOptions
from amg.runs.schema import FAILED
from amg.storage.urls import shown

if TYPE_CHECKING:
    from pipelines.corpus.run import RunReport

ProgressOption = Annotated[
    str | None, typer.Option("--progress", help="bar, lines, json or none; default: as it fits.")
]
MetricsOption = Annotated[
    int | None, typer.Option("--metrics-port", help="Serve Prometheus metrics on this port.")
]
MetricsAddressOption = Annotated[
    str | None,
    typer.Option(help="Where metrics are served: 0.0.0.0 for all networks; default: 127.0.0.1."),
]


def run(
    out: OutOption,
    inputs: Annotated[
        list[str] | None, typer.Argument(help=f"{INPUTS_HELP} None with --embeddings.")
    ] = None,
    model: ModelOption = None,
    checkpoint: CheckpointOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    memory_budget: MemoryBudgetOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    limit: LimitOption = None,
    prompts: PromptsOption = None,
    multimask: Annotated[
        bool, typer.Option("--multimask", help="Keep three masks of each prompt, not the best.")
    ] = False,
    embeddings: Annotated[
        str | None,
        typer.Option(
            metavar="EMB", help="In place of images, what `amg embed` has kept of them in EMB."
        ),
    ] = None,
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
    slice_: SliceOption = None,
    overwrite: OverwriteOption = False,
    yes: YesOption = False,
    accept_failures: AcceptFailuresOption = 0.0,
    progress: ProgressOption = None,
    metrics_port: MetricsOption = None,
    metrics_address: MetricsAddressOption = None,
) -> None:
    """Segment images; write one row for each to Parquet shards under OUT. Resumes what OUT holds.

    With --prompts, masks are answers to what is asked of each image; with --embeddings, images are
    not encoded again.

    Exit codes: 0 all images done, 3 done but some failed (their rows say why), 4 stopped: the same
    command goes on, 6 cannot go on before what is named is mended, 2 bad usage, 5 storage failed.
    """
    if not inputs and embeddings is None:
        raise ConfigError("give images, folders, lists, tables or tars; or --embeddings EMB")
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
            "multimask": multimask or None,
            "max_failure_rate": max_failure_rate,
            "on_duplicate": on_duplicate,
            "allow": allow or None,
        },
        engine=engine_keys(engine, address, workers, cpus_per_worker, gpus_per_worker),
    )
    execute(
        inputs or [],
        out,
        resolved,
        overwrite=overwrite,
        yes=yes,
        slice_=slice_,
        accepted=accept_failures,
        progress=progress,
        metrics=(metrics_port, metrics_address),
        options=SourceOptions(id_column, uri_column, image_column),
        limit=limit,
        remap=remap or (),
        prompts=prompts,
        embeddings=embeddings,
    )


def execute(
    inputs: list[str],
    out: str,
    config: Config,
    *,
    overwrite: bool,
    yes: bool,
    slice_: str | None,
    accepted: float,
    progress: str | None,
    metrics: tuple[int | None, str | None],
    **job: Any,
) -> None:
    """Do a run, show how it goes, and exit with the code for it. `job`: what else `Run` takes."""
    from pipelines.corpus.run import Run  # noqa: PLC0415 - the library works without pipelines

    if overwrite and slice_ is not None:
        raise ConfigError("--overwrite, --slice: give one; the run belongs to all its slices")
    if overwrite:
        confirm_overwrite(out, yes)
    run_ = Run(inputs, out, config, overwrite=overwrite, slice_=parse_slice(slice_), **job)
    with RunDisplay(errors, progress) as display:
        report = run_.execute(_watch(display, *metrics))
    conclude(report, out, accepted)


def retry_failed(
    run: RunArgument,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(help="The run's inputs, with signatures that hold now, or moved."),
    ] = None,
    status: Annotated[
        list[str] | None,
        typer.Option(help="Only rows of this status, e.g. oom. Repeatable; default: all failed."),
    ] = None,
    limit: LimitOption = None,
    id_column: IdColumnOption = None,
    uri_column: UriColumnOption = None,
    image_column: ImageColumnOption = None,
    allow: AllowOption = None,
    remap: RemapOption = None,
    device: DeviceOption = None,
    memory_budget: MemoryBudgetOption = None,
    set_: SetOption = None,
    engine: EngineOption = None,
    address: AddressOption = None,
    workers: WorkersOption = None,
    cpus_per_worker: CpusOption = None,
    gpus_per_worker: GpusOption = None,
    slice_: SliceOption = None,
    accept_failures: AcceptFailuresOption = 0.0,
    progress: ProgressOption = None,
    metrics_port: MetricsOption = None,
    metrics_address: MetricsAddressOption = None,
) -> None:
    """Do the images again whose rows say that they failed; all other rows stay as they are.

    What decides rows is the run's, where and how it is done this call's. Exit codes as `amg run`.
    """
    from pipelines.corpus.run import retry_failed as retry  # noqa: PLC0415

    def change(config: Config) -> Config:
        return with_options(
            override(config, set_ or ()),
            model={"device": device},
            generator={"memory_budget": memory_budget},
            run={"allow": allow or None},
            engine=engine_keys(engine, address, workers, cpus_per_worker, gpus_per_worker),
        )

    part, statuses = parse_slice(slice_), status or FAILED
    with RunDisplay(errors, progress) as display:
        report = retry(
            run,
            statuses=statuses,
            slice_=part,
            inputs=inputs,
            options=SourceOptions(id_column, uri_column, image_column),
            limit=limit,
            remap=remap or (),
            change=change,
            watch=_watch(display, metrics_port, metrics_address),
        )
    conclude(report, run, accept_failures)


def engine_keys(
    engine: str | None,
    address: str | None,
    workers: str | None,
    cpus: float | None,
    gpus: float | None,
) -> dict[str, Any]:
    """Options as keys of the engine's configuration."""
    named = {"name": engine, "address": address, "cpus_per_worker": cpus, "gpus_per_worker": gpus}
    return {**named, **parse_workers(workers)}


def _watch(display: RunDisplay, port: int | None, address: str | None) -> Any:
    if port is None:
        if address is not None:
            raise ConfigError("--metrics-address: give --metrics-port too")
        return display.update
    from pipelines.corpus.metrics import serve_metrics  # noqa: PLC0415

    measure = serve_metrics(port, address or "127.0.0.1")

    def watch(state: Any) -> None:
        display.update(state)
        measure(state)

    return watch


def conclude(report: "RunReport", out: str, accepted: float = 0.0) -> None:
    """Say what has become of a run, and exit with the code for it.

    accepted: the largest share of failed images that counts as success.
    """
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
    tally = report.tally
    if tally.failed > accepted * tally.images:
        raise typer.Exit(EXIT_SOME_FAILED)


def describe(report: "RunReport") -> None:
    """Print a report."""
    tally = report.tally
    counts = ", ".join(f"{n} {status}" for status, n in sorted(tally.statuses.items()))
    made = f"{tally.masks} masks"
    if report.embed_dtype is not None:
        made = f"embeddings in {report.embed_dtype}"
    errors.print(
        f"{tally.images} of {report.n_images} images ({counts or 'none'}), {made}; "
        f"{report.n_committed} of {report.n_shards} shards"
    )
    if report.prompts is not None:
        errors.print(describe_prompts(report.prompts, tally))
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
