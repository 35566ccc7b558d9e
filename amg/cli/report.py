"""`amg report`: a folder to open in a browser, of what a run found and where it failed."""

from typing import Annotated

import typer

from amg.cli.options import RunArgument, errors
from amg.cli.progress import CountDisplay
from amg.view.report import DEFAULT_IMAGES

FolderOption = Annotated[
    str | None, typer.Option("--out", help="Folder for the report; default: RUN/report.")
]
ImagesOption = Annotated[int, typer.Option("--images", min=1, help="Most images in the gallery.")]


def report(
    run: RunArgument, folder: FolderOption = None, images: ImagesOption = DEFAULT_IMAGES
) -> None:
    """Write a page of what a run found and where it failed; it opens without server or network.

    Also while the run goes on: it shows what is committed.
    """
    from amg.view.report.build import write_report  # noqa: PLC0415

    with CountDisplay(errors) as display:
        written = write_report(run, folder, images, display.update)
    shown = f"{written.n_shown} of {written.n_images} images shown"
    if written.n_unreadable:
        shown += f", {written.n_unreadable} without their picture"
    errors.print(f"{shown}: open {written.page}", markup=False, soft_wrap=True)
