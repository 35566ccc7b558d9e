"""`amg plan`: what a run would do."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amg.cli.answers import show_facts, show_json
from amg.cli.options import (
    AllowOption,
    CheckpointOption,
    ConfigOption,
    IdColumnOption,
    ImageColumnOption,
    InputsArgument,
    JsonOption,
    LimitOption,
    ModelOption,
    OnDuplicateOption,
    PromptsOption,
    SetOption,
    UriColumnOption,
    resolve_config,
)
from amg.config import Config
from amg.inputs.sources import SourceOptions
from amg.records import EmbeddingDtype
from amg.runs.folder import PromptCounts

if TYPE_CHECKING:
    from pipelines.corpus.listing import Listing


def plan(
    inputs: InputsArgument,
    model: ModelOption = None,
    checkpoint: CheckpointOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    limit: LimitOption = None,
    prompts: PromptsOption = None,
    embed: Annotated[
        EmbeddingDtype | None,
        typer.Option(help="Say what `amg embed --dtype` would do, and how much it would write."),
    ] = None,
    id_column: IdColumnOption = None,
    uri_column: UriColumnOption = None,
    image_column: ImageColumnOption = None,
    on_duplicate: OnDuplicateOption = None,
    allow: AllowOption = None,
    seconds_per_image: Annotated[
        float | None, typer.Option(min=0, help="For the estimate: what a worker needs.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a run would do: images, shards, bytes, time. Nothing is written or segmented."""
    from pipelines.corpus.embeddings import embedding_bytes  # noqa: PLC0415
    from pipelines.corpus.listing import Job, check_job  # noqa: PLC0415
    from pipelines.corpus.plan import survey  # noqa: PLC0415

    resolved = resolve_config(
        config,
        set_,
        model={"name": model, "checkpoint": checkpoint},
        run={"on_duplicate": on_duplicate, "allow": allow or None},
    )
    options = SourceOptions(id_column, uri_column, image_column)
    job = Job(inputs, resolved, options, limit, prompts=prompts, embed=embed)
    check_job(job)
    listing, resolved = survey(job)
    values = _values(listing, resolved, seconds_per_image)
    values["embedding_bytes"] = None if embed is None else embedding_bytes(resolved, embed)
    if as_json:
        show_json(values)
    else:
        show_facts(_facts(values))


def _values(listing: "Listing", config: Config, seconds_per_image: float | None) -> dict[str, Any]:
    size, generator, asked = config.run.images_per_shard, config.generator, listing.asked
    return {
        "n_images": listing.n_images,
        "n_bytes": listing.n_bytes,
        "n_of_unknown_size": listing.n_unknown,
        "prompts": None if asked is None else asdict(asked.counts(listing.n_images)),
        "n_later_of_an_id": listing.n_later,
        "on_duplicate": config.run.on_duplicate,
        "n_shards": -(-listing.n_images // size),
        "images_per_shard": size,
        "model": config.model.shown_name,
        "points_per_side": generator.points_per_side,
        "crop_n_layers": generator.crop_n_layers,
        "seconds_per_image": seconds_per_image,
        "worker_s": None if seconds_per_image is None else listing.n_images * seconds_per_image,
    }


def _facts(values: dict[str, Any]) -> dict[str, str]:
    unknown, points = values["n_of_unknown_size"], values["points_per_side"]
    asked = values["prompts"]
    grid = f"{points} x {points} points" if points else "explicit points"
    layers = f"{values['crop_n_layers']} layers of crops"
    time = "run a few (--limit 20), then give --seconds-per-image"
    if values["worker_s"] is not None:
        hours, each = values["worker_s"] / 3600, values["seconds_per_image"]
        time = f"about {hours:.1f} hours on one worker, at {each:g} s an image"
    of_unknown_size = f" ({unknown} images of unknown size)" if unknown else ""
    later = f"{values['n_later_of_an_id']} ids were there before: {values['on_duplicate']}"
    shards = f"{values['n_shards']} of {values['images_per_shard']} images"
    each = values["embedding_bytes"]
    what = "" if asked or each else f", {grid}, {layers}"
    size = f"{(each or 0) / 1e6:.1f} MB an image, {(each or 0) * values['n_images'] / 1e9:.2f} GB"
    return {
        "images": str(values["n_images"]),
        "bytes": f"{values['n_bytes'] / 1e6:.1f} MB{of_unknown_size}",
        **({"duplicates": later} if values["n_later_of_an_id"] else {}),
        **({"prompts": str(PromptCounts(**asked))} if asked else {}),
        "shards": f"{shards} (run.images_per_shard)",
        "model": values["model"] + what,
        **({"embeddings": size} if each else {}),
        "time": time,
    }
