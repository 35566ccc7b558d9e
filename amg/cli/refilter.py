"""`amg refilter`: other filters for a run's stored masks."""

from typing import Annotated

import typer

from amg.cli.options import (
    OutOption,
    OverwriteOption,
    ProcessesOption,
    RunArgument,
    YesOption,
    confirm_overwrite,
    errors,
)
from amg.cli.progress import RunDisplay
from amg.cli.run import ProgressOption, conclude


def refilter(
    run: RunArgument,
    out: OutOption,
    pred_iou: Annotated[
        float | None, typer.Option(min=0, max=1, help="Predicted IoU above which masks stay.")
    ] = None,
    stability: Annotated[
        float | None, typer.Option(min=0, max=1, help="Stability from which on masks stay.")
    ] = None,
    nms: Annotated[
        float | None, typer.Option(min=0, max=1, help="Box IoU of duplicates in a crop.")
    ] = None,
    crop_nms: Annotated[
        float | None, typer.Option(min=0, max=1, help="Box IoU of duplicates between crops.")
    ] = None,
    mask_nms: Annotated[
        float | None, typer.Option(min=0, max=1, help="Mask IoU of duplicates.")
    ] = None,
    min_region: Annotated[
        int | None, typer.Option(min=0, help="Holes and islands below so many pixels go.")
    ] = None,
    min_area: Annotated[int | None, typer.Option(min=0, help="Pixels of a mask, at least.")] = None,
    max_area: Annotated[int | None, typer.Option(min=1, help="Pixels of a mask, at most.")] = None,
    max_area_fraction: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of the image, at most.")
    ] = None,
    parents: Annotated[
        bool | None, typer.Option("--parents/--no-parents", help="Find which mask lies in which.")
    ] = None,
    containment: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of a mask that lies in its parent.")
    ] = None,
    keep_candidates: Annotated[
        bool | None,
        typer.Option("--keep-candidates/--drop-candidates", help="Default: as RUN has them."),
    ] = None,
    approximate: Annotated[
        bool, typer.Option(help="Allow what may differ from a fresh run's masks.")
    ] = False,
    workers: ProcessesOption = None,
    overwrite: OverwriteOption = False,
    yes: YesOption = False,
    progress: ProgressOption = None,
) -> None:
    """Make a new run of a finished one's stored masks, by other filters: no model, no images.

    Its masks are those that `amg run` would give with these filters; where stored masks do not
    suffice for that, it says why. Resumes what OUT holds. Exit codes as `amg run`.
    """
    from pipelines.refilter import refilter_run  # noqa: PLC0415

    named = {
        "pred_iou_thresh": pred_iou,
        "stability_score_thresh": stability,
        "box_nms_thresh": nms,
        "crop_nms_thresh": crop_nms,
        "mask_nms_thresh": mask_nms,
        "min_mask_region_area": min_region,
        "min_area": min_area,
        "max_area": max_area,
        "max_area_fraction": max_area_fraction,
        "find_parents": parents,
        "parent_containment": containment,
        "keep_candidates": keep_candidates,
    }
    changes = {key: value for key, value in named.items() if value is not None}
    if overwrite:
        confirm_overwrite(out, yes)
    with RunDisplay(errors, progress) as display:
        report = refilter_run(
            run,
            out,
            changes,
            approximate=approximate,
            workers=workers,
            overwrite=overwrite,
            watch=display.update,
        )
    conclude(report, out)
