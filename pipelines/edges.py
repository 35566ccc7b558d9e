"""From photos to edge maps, by SAM's zero-shot protocol."""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from amg.config import Config
from amg.errors import ConfigError, ImageError, OutputError
from amg.evaluate.edge_map import edge_map, write_edge_map
from amg.generate.probability import generate_soft
from amg.io.images import decode_image
from amg.io.reading import read_source
from amg.io.sources import ImageSource
from pipelines.worker import make_generator

PROTOCOL = (
    "generator.points_per_side=16",
    "generator.pred_iou_thresh=0",
    "generator.stability_score_thresh=0",
    "generator.box_nms_thresh=0.7",
)
"""768 masks a photo, three for each point, without filters. "Segment Anything", appendix D.2."""


def draw_edges(config: Config, sources: Sequence[ImageSource], out: Path) -> Iterator[str]:
    """Write OUT/NAME.png for each photo; gives the paths.

    Raises ConfigError where two photos have the same name, ImageError, OutputError.
    """
    targets = {_name(source): source for source in sources}
    if len(targets) < len(sources):
        raise ConfigError("photos: two have the same name, and would have the same edge map")
    generator = make_generator(config)
    for name, source in targets.items():
        try:
            image = decode_image(read_source(source), max_pixels=config.run.max_image_pixels).rgb
        except ImageError as error:
            raise ImageError(error.status, f"{source.uri}: {error}") from error
        edges = edge_map(generate_soft(generator, image), (image.shape[0], image.shape[1]))
        path = out / f"{name}.png"
        try:
            out.mkdir(parents=True, exist_ok=True)
            write_edge_map(path, edges)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
        yield str(path)


def _name(source: ImageSource) -> str:
    return PurePosixPath(source.image_id.rpartition("::")[2]).stem
