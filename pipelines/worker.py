"""What one worker does: images in, rows out, in order, with reading ahead in threads."""

import hashlib
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice

from amg.config import RunConfig
from amg.errors import ImageError
from amg.generate.generator import MaskGenerator
from amg.io.images import DecodedImage, decode_image, read_bytes
from amg.io.schema import ImageRow
from amg.io.sources import ImageSource


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A row that lacks its masks, and the image to make them from: None if it cannot be read."""

    row: ImageRow
    image: DecodedImage | None


class Worker:
    """Holds a generator, and turns sources into rows."""

    def __init__(self, generator: MaskGenerator, config: RunConfig) -> None:
        self.generator = generator
        self.config = config

    def rows(self, sources: Sequence[ImageSource]) -> Iterator[ImageRow]:
        """Yield one row for each source, in order; images that cannot be read are rows too."""
        loaded = self._load_ahead(sources)
        while batch := list(islice(loaded, self.config.images_per_batch)):
            yield from self._segment(batch)

    def _load_ahead(self, sources: Sequence[ImageSource]) -> Iterator[_Loaded]:
        """Read and decode in threads, two batches ahead of the model."""
        waiting: deque[Future[_Loaded]] = deque()
        with ThreadPoolExecutor(self.config.decode_threads) as pool:
            for source in sources:
                waiting.append(pool.submit(load_image, source, self.config.max_image_pixels))
                if len(waiting) > 2 * self.config.images_per_batch:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _segment(self, batch: list[_Loaded]) -> Iterator[ImageRow]:
        images = [loaded.image.rgb for loaded in batch if loaded.image is not None]
        results = iter(self.generator.generate_batch(images))
        for loaded in batch:
            if loaded.image is None:
                yield loaded.row
                continue
            result = next(results)
            yield replace(
                loaded.row,
                status="ok" if result.masks else "empty",
                masks=result.masks,
                encode_s=result.seconds.encode,
                masks_s=result.seconds.masks,
            )


def load_image(source: ImageSource, max_pixels: int) -> _Loaded:
    """Read and decode one image; whatever is wrong with it goes into its row."""
    started = time.perf_counter()
    row = ImageRow(source.image_id, source.uri, status="empty")
    image = None
    try:
        data = read_bytes(source.path)
        row = replace(row, sha256=hashlib.sha256(data).hexdigest())
        image = decode_image(data, max_pixels=max_pixels)
    except ImageError as error:
        row = replace(row, status=error.status, error=str(error))
    else:
        height, width, _ = image.rgb.shape
        row = replace(row, height=height, width=width, source_mode=image.source_mode)
    return _Loaded(replace(row, decode_s=time.perf_counter() - started), image)
