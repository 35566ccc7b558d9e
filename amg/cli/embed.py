"""`amg embed`: images through the encoder alone, once and for all."""

from typing import Annotated

import typer

from amg.cli.options import (
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
    InputsArgument,
    LimitOption,
    MaxFailureRateOption,
    ModelOption,
    OnDuplicateOption,
    OutOption,
    OverwriteOption,
    PrecisionOption,
    RemapOption,
    SetOption,
    SliceOption,
    UriColumnOption,
    WorkersOption,
    YesOption,
    resolve_config,
)
from amg.cli.run import MetricsAddressOption, MetricsOption, ProgressOption, engine_keys, execute
from amg.inputs.sources import SourceOptions
from amg.records import EmbeddingDtype

DtypeOption = Annotated[
    EmbeddingDtype,
    typer.Option("--dtype", help="float16, or float32: twice the size, and masks are equal."),
]


def embed(
    inputs: InputsArgument,
    out: OutOption,
    dtype: DtypeOption = "float16",
    model: ModelOption = None,
    checkpoint: CheckpointOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
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
    slice_: SliceOption = None,
    overwrite: OverwriteOption = False,
    yes: YesOption = False,
    accept_failures: AcceptFailuresOption = 0.0,
    progress: ProgressOption = None,
    metrics_port: MetricsOption = None,
    metrics_address: MetricsAddressOption = None,
) -> None:
    """Encode images, and keep that: amg run --embeddings OUT then needs no encoder. Resumes OUT.

    How much it will write is said before it starts. Exit codes as `amg run`.
    """
    model_keys = {"name": model, "checkpoint": checkpoint}
    resolved = resolve_config(
        config,
        set_,
        model={**model_keys, "device": device, "precision": precision},
        run={
            "max_failure_rate": max_failure_rate,
            "on_duplicate": on_duplicate,
            "allow": allow or None,
        },
        engine=engine_keys(engine, address, workers, cpus_per_worker, gpus_per_worker),
    )
    execute(
        inputs,
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
        embed=dtype,
    )
