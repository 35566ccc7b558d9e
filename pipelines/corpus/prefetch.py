"""Reading ahead: while the model works, threads read, decode and prepare, within a budget."""

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from amg.config import RunConfig
from amg.errors import ImageError
from amg.inputs.images import decode_image
from amg.inputs.sources import ImageSource
from amg.records import Embedding, Prompt
from amg.runs.schema import ImageRow
from pipelines.corpus.asking import Question
from pipelines.corpus.messages import HasBytes

Ask = Callable[[int, np.ndarray | Embedding], Question]
"""What is asked of the image of an index, prepared for it: of (H, W, 3) uint8 RGB, or of what was
kept of it; in threads."""

Read = Callable[[ImageSource], bytes]
"""The bytes of a source's file, in threads; raises ImageError, and StorageError to end it all."""


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """A row that lacks its masks, and the image to make them from.

    There is no image if it cannot be read, or if nothing is asked of it.
    """

    index: int
    row: ImageRow
    image: HasBytes | None
    prompts: tuple[Prompt, ...] | None = None


class ByteBudget:
    """Memory for images that wait, given strictly in turn, while it lasts; one alone always fits.

    Turns make it safe: threads work on the oldest images, and the oldest of all waits only for
    images that the consumer is about to take.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._used = 0
        self._turn = 0
        self._closed = False
        self._changed = threading.Condition()

    def take(self, turn: int, n_bytes: int) -> None:
        """Wait until it is this image's turn and it fits."""

        def admissible() -> bool:
            fits = self._used == 0 or n_bytes == 0 or self._used + n_bytes <= self._limit
            return self._closed or (self._turn == turn and fits)

        with self._changed:
            self._changed.wait_for(admissible)
            self._turn += 1
            self._used += n_bytes
            self._changed.notify_all()

    def change(self, n_bytes: int) -> None:
        """An image takes so much more than before, or less: that waits for nothing."""
        with self._changed:
            self._used += n_bytes
            self._changed.notify_all()

    def close(self) -> None:
        """Let every waiting thread go on: nobody will take what they bring."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Place:
    """One image's place in the budget: entered once, by a decoder or else on leaving.

    `waited_s`: how long that has taken.
    """

    def __init__(self, budget: ByteBudget, turn: int) -> None:
        self._budget, self._turn = budget, turn
        self._n_bytes: int | None = None
        self.waited_s = 0.0

    def enter(self, n_bytes: int) -> None:
        """Wait for so much memory."""
        started = time.perf_counter()
        self._budget.take(self._turn, n_bytes)
        self.waited_s = time.perf_counter() - started
        self._n_bytes = n_bytes

    def charge(self, n_bytes: int) -> None:
        """The image was prepared, and takes so much now."""
        if self._n_bytes is None:
            self.enter(0)
        self._budget.change(n_bytes - (self._n_bytes or 0))
        self._n_bytes = n_bytes

    def leave(self) -> None:
        """The image takes nothing any more."""
        self.charge(0)


Load = Callable[[int, ImageSource, Place], LoadedImage]
"""What is loaded of the image of an index, in threads; it says of the memory that this takes."""


def load_ahead(
    sources: Iterable[tuple[int, ImageSource]],
    config: RunConfig,
    load: Load,
    announce: Callable[[int], None] = lambda _: None,
) -> Generator[LoadedImage]:
    """Load (index, source) pairs, in order, ahead of who takes them.

    announce: hears of each index before its image is touched. Raises what `load` raises.
    """
    ahead = 2 * config.images_per_batch + config.decode_threads
    budget = ByteBudget(config.prefetch_bytes)
    waiting: deque[tuple[Place, Future[LoadedImage]]] = deque()
    pool = ThreadPoolExecutor(config.decode_threads, "decode")
    try:
        for turn, (index, source) in enumerate(sources):
            announce(index)
            place = Place(budget, turn)
            waiting.append((place, pool.submit(load, index, source, place)))
            if len(waiting) > ahead:
                yield _take(waiting)
        while waiting:
            yield _take(waiting)
    finally:
        budget.close()
        pool.shutdown(cancel_futures=True)


def _take(waiting: deque[tuple[Place, Future[LoadedImage]]]) -> LoadedImage:
    place, future = waiting.popleft()
    loaded = future.result()
    place.leave()
    return loaded


def load_image(
    index: int,
    source: ImageSource,
    place: Place,
    *,
    config: RunConfig,
    read: Read,
    ask: Ask,
) -> LoadedImage:
    """Read, decode and prepare an image; whatever is wrong with it goes into its row.

    Raises what `read` raises, but for ImageError.
    """
    started = time.perf_counter()
    row = ImageRow(source.image_id, source.uri, status="empty")
    question = Question(None)
    try:
        data = read(source)
        row = replace(row, sha256=hashlib.sha256(data).hexdigest())
        decoded = decode_image(data, max_pixels=config.max_image_pixels, admit=place.enter)
        height, width, _ = decoded.rgb.shape
        row = replace(row, height=height, width=width, source_mode=decoded.source_mode)
        question = ask(index, decoded.rgb)
        row = replace(row, prompt_errors=question.errors)
        if question.image is not None:
            place.charge(question.image.nbytes)
    except ImageError as error:
        row = replace(row, status=error.status, error=str(error))
    finally:
        if question.image is None:
            place.leave()
    decode_s = time.perf_counter() - started - place.waited_s
    row = replace(row, decode_s=decode_s)
    return LoadedImage(index, row, question.image, question.prompts)
