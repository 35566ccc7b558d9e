"""From photos to edge maps, by SAM's zero-shot protocol."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from amg.config import Config
from amg.errors import ConfigError, ImageError, RunError, StorageError
from amg.evaluate.edge_map import edge_map, write_edge_map
from amg.generate.probability import generate_soft
from amg.inputs.images import decode_image
from amg.inputs.reading import read_source
from amg.inputs.sources import ImageSource
from amg.storage.stores import LocalStorage
from pipelines.corpus.generators import make_generator
from pipelines.corpus.plan import differences, identity
from pipelines.corpus.settings import resolve

PROTOCOL = (
    "generator.points_per_side=16",
    "generator.pred_iou_thresh=0",
    "generator.stability_score_thresh=0",
    "generator.box_nms_thresh=0.7",
)
"""768 masks a photo, three for each point, without filters. "Segment Anything", appendix D.2."""
SETTINGS = "edges.json"
"""What a folder's maps were made with."""


@dataclass(frozen=True, slots=True)
class DrawnPhoto:
    """Where a photo's edge map is; or, in place of one, the `problem` with the photo."""

    path: Path
    problem: str | None = None


def draw_edges(config: Config, sources: Sequence[ImageSource], out: Path) -> Iterator[DrawnPhoto]:
    """Write OUT/NAME.png for each photo that has none yet; gives what became of each.

    Raises ConfigError where two photos have the same name, RunError for a folder whose maps were
    made with another model or other parameters, StorageError where nothing can be written.
    """
    targets = {out / f"{_name(source)}.png": source for source in sources}
    if len(targets) < len(sources):
        raise ConfigError("photos: two have the same name, and would have the same edge map")
    config = _settle(config, LocalStorage(out))
    to_draw = {path: source for path, source in targets.items() if not path.exists()}
    yield from (DrawnPhoto(path) for path in targets if path not in to_draw)
    if not to_draw:
        return
    generator = make_generator(config)
    for path, source in to_draw.items():
        try:
            image = decode_image(read_source(source), max_pixels=config.run.max_image_pixels).rgb
        except (ImageError, StorageError) as error:
            yield DrawnPhoto(path, f"{source.uri}: {error}")
            continue
        edges = edge_map(generate_soft(generator, image), (image.shape[0], image.shape[1]))
        write_edge_map(path, edges)
        yield DrawnPhoto(path)


def _settle(config: Config, storage: LocalStorage) -> Config:
    """Resolve the configuration; write it down beside the maps, or compare with what is there."""
    config, weights_sha256 = resolve(config)
    planned = identity(config, weights_sha256, inputs_sha256="")
    now = {key: planned[key] for key in ("model", "generator")}
    kept = storage.read(SETTINGS)
    if kept is None:
        if any(storage.root.glob("*.png")):
            raise RunError(f"{storage.url()} holds pictures, and does not say what they are")
        storage.write(SETTINGS, (json.dumps(now, indent=2) + "\n").encode())
        return config
    try:
        said = differences(json.loads(kept), now)
    except ValueError as error:
        raise RunError(f"{storage.url(SETTINGS)}: not JSON: {error}") from error
    if said:
        raise RunError(f"{storage.url()} holds edge maps of another kind ({'; '.join(said)})")
    return config


def _name(source: ImageSource) -> str:
    return PurePosixPath(source.image_id.rpartition("::")[2]).stem
