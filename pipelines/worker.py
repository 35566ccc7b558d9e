"""What one worker does: images in, rows out, in order, with reading ahead in threads."""

import hashlib
import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice

import torch

from amg.config import RunConfig
from amg.errors import ImageError
from amg.generate.generator import MaskGenerator
from amg.io.images import DecodedImage, decode_image, read_bytes
from amg.io.schema import ImageRow
from amg.io.sources import ImageSource
from amg.records import ImageResult

logger = logging.getLogger(__name__)
_MAX_REASON_CHARS = 200


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
        pool = ThreadPoolExecutor(self.config.decode_threads)
        try:
            for source in sources:
                waiting.append(pool.submit(load_image, source, self.config.max_image_pixels))
                if len(waiting) > 2 * self.config.images_per_batch:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _segment(self, batch: list[_Loaded]) -> list[ImageRow]:
        """The rows of a batch; if it fails, each image by itself, so that one cannot spoil others.

        An image that fails alone is a row with the reason.
        """
        try:
            images = [loaded.image.rgb for loaded in batch if loaded.image is not None]
            results = iter(self.generator.generate_batch(images))
        # Whatever an image makes torch, OpenCV or our own code raise, the run's other rows go on.
        except Exception as error:
            if len(batch) > 1:
                return [row for loaded in batch for row in self._segment([loaded])]
            logger.exception("%s: cannot be segmented", batch[0].row.image_id)
            out_of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
            status = "oom" if out_of_memory else "crashed"
            reason = f"{type(error).__name__}: {error}"[:_MAX_REASON_CHARS]
            return [replace(batch[0].row, status=status, error=reason)]
        return [
            loaded.row if loaded.image is None else _with_masks(loaded.row, next(results))
            for loaded in batch
        ]


def _with_masks(row: ImageRow, result: ImageResult) -> ImageRow:
    return replace(
        row,
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
