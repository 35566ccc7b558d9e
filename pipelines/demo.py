"""`make demo`: segment the photos inside scikit-image's wheel and draw what was found.

Leaves OUT/photos, the run's OUT/masks with its Parquet shard, the page OUT/report/index.html, and a
picture for each photo.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import skimage.data
import typer
from PIL import Image

from amg.config import load_config
from amg.inputs.images import decode_image
from amg.inputs.reading import read_bytes
from amg.runs.results import open_run
from amg.view.overlay import beside, draw_overlay
from amg.view.report.build import write_report
from pipelines.corpus.run import Run

# In the wheel itself: no download.
PHOTOS = ("astronaut", "cat", "coffee", "rocket", "camera", "coins")


def write_photos(folder: Path) -> None:
    """Write the photos as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in PHOTOS:
        photo: np.ndarray = getattr(skimage.data, name)()
        Image.fromarray(photo).save(folder / f"{name}.png")


def main(out: Annotated[Path, typer.Option(help="Folder for photos, masks and pictures.")]) -> None:
    """Segment the photos and draw the masks over them."""
    write_photos(out / "photos")
    Run([out / "photos"], out / "masks", load_config(), overwrite=True).execute()
    for row in open_run(out / "masks").rows():
        photo = decode_image(read_bytes(out / "photos" / row.image_id)).rgb
        picture = out / f"{Path(row.image_id).stem}.png"
        Image.fromarray(beside(photo, draw_overlay(photo, row.masks))).save(picture)
        typer.echo(f"{row.image_id}: {len(row.masks)} masks: look at {picture}")
    typer.echo(f"all of it: open {write_report(out / 'masks', out / 'report').page}")


if __name__ == "__main__":
    typer.run(main)
