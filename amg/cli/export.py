"""`amg export`: a run's masks for the tools that people already use."""

from typing import Annotated, Any

import typer

from amg.cli.options import EXIT_SOME_FAILED, RunArgument, errors
from amg.cli.progress import CountDisplay


def export(
    run: RunArgument,
    to: Annotated[
        str,
        typer.Option(
            help="coco, sa1b, yolo, label-map, panoptic, png, label-studio or cvat; "
            "docs/exports.md says what each holds and who reads it."
        ),
    ],
    dest: Annotated[str, typer.Option("--out", help="A local folder: new, or to go on with.")],
    min_predicted_iou: Annotated[float | None, typer.Option(min=0, max=1)] = None,
    min_stability: Annotated[float | None, typer.Option(min=0, max=1)] = None,
    min_area: Annotated[int | None, typer.Option(min=0, help="Pixels.")] = None,
    max_masks_per_image: Annotated[
        int | None,
        typer.Option(min=1, help="The best by predicted IoU; Label Studio brushes: 50."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N images.")] = None,
    segmentation: Annotated[
        str | None,
        typer.Option(help="Of coco, cvat, label-studio: rle (exact, any mask) or polygons."),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0, help="Of polygons: leave out points within so many pixels; 0: exact."),
    ] = None,
    overlap: Annotated[
        str | None,
        typer.Option(help="Of label-map, panoptic: smaller-on-top, or score: the better one."),
    ] = None,
    images_per_file: Annotated[
        int | None, typer.Option(min=1, help="Of coco, cvat, label-studio: several files.")
    ] = None,
    file_name: Annotated[
        str | None,
        typer.Option(help="Of coco, cvat, sa1b, panoptic: id, uri, or name: the uri's last part."),
    ] = None,
    label: Annotated[str | None, typer.Option(help="The one class; default: object.")] = None,
    image_url: Annotated[
        str | None,
        typer.Option(help="Of label-studio: what comes before an image's id; default: its uri."),
    ] = None,
    from_name: Annotated[str | None, typer.Option(help="Of label-studio: the tag's.")] = None,
    to_name: Annotated[str | None, typer.Option(help="Of label-studio: the image's.")] = None,
) -> None:
    """Take a run's masks into COCO, SA-1B, YOLO, label maps, PNGs, Label Studio or CVAT.

    The same command goes on where it was interrupted. Exit code 3: some images could not be said
    in the format.
    """
    options = dict(locals())
    source, form, folder = (options.pop(name) for name in ("run", "to", "dest"))
    given = {name: value for name, value in options.items() if value is not None}
    _export(source, form, folder, given)


def _export(run: str, to: str, folder: str, options: dict[str, Any]) -> None:
    from amg.exports.formats import export as write  # noqa: PLC0415 - opencv only when needed
    from amg.runs.results import open_run  # noqa: PLC0415

    results = open_run(run)
    if not results.is_complete:
        n_there, n_all = len(results.commits), results.plan.n_shards
        errors.print(f"the run is not complete: {n_there} of {n_all} shards are exported")
    with CountDisplay(errors) as display:
        report = write(results, to, folder, progress=display.update, **options)
    summary = f"{report.images} images, {report.masks} masks: {folder}"
    errors.print(summary, markup=False, soft_wrap=True)
    details = {"masks not chosen": report.masks_left_out, **report.notes}
    details |= {f"images left out: {status}": n for status, n in report.failed.items()}
    for text, count in details.items():
        if count:
            errors.print(f"  {count} {text}", markup=False)
    if report.refused:
        errors.print(f"[bold red]{report.refused} images refused[/], the first of them:")
        for problem in report.problems:
            errors.print(f"  {problem}", markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_SOME_FAILED)
