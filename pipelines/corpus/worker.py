"""What one worker does: a shard's images in, its published Parquet file out."""

import logging
import platform
import tempfile
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import islice

from amg.errors import (
    BlockedRunError,
    CheckpointError,
    ImageError,
    InterruptedRunError,
    StorageError,
)
from amg.inputs.reading import read_source
from amg.inputs.sources import ImageSource
from amg.records import ImageResult, Prompt
from amg.runs.folder import DATA, Plan, attempt_file, read_plan, shard_file, to_json
from amg.runs.prompts import PlannedPrompts
from amg.runs.schema import ImageRow
from amg.runs.shards import ShardWriter, check_shard, read_shard, read_statuses
from amg.storage.access import is_passing
from amg.storage.failpoints import reach
from amg.storage.patient import open_patiently
from amg.storage.retry import read_with_backoff
from amg.storage.stores import Storage
from pipelines.corpus.asking import (
    Image,
    Question,
    ask_grid,
    ask_prompts,
    prepared_again,
    unanswered,
)
from pipelines.corpus.devices import empty_cache, is_device_lost, is_out_of_memory
from pipelines.corpus.embeddings import load_embedding, open_shard
from pipelines.corpus.messages import (
    MakeGenerator,
    MakeWorker,
    OnProgress,
    Progress,
    Segmenter,
    ShardResult,
    ShardTask,
    WorkerSetup,
)
from pipelines.corpus.prefetch import LoadedImage, load_ahead, load_image
from pipelines.corpus.witness import InputReader

logger = logging.getLogger(__name__)
_MAX_REASON_CHARS = 200
_BEAT_S = 1.0
_UNREAD = ("missing", "unreachable")  # a file that is no picture is there


def segmenting(make_generator: MakeGenerator) -> MakeWorker:
    """What makes workers that segment with such a generator."""
    return partial(Worker, make_generator=make_generator)


class Worker:
    """Holds a generator, and turns shard tasks into published shards, one at a time.

    `report` hears of every step that tells which images are being touched, before it is taken.

    Raises CheckpointError if the weights are not those of the plan, BlockedRunError where this
    machine sees no such run, or cannot read what the driver can.
    """

    def __init__(
        self, setup: WorkerSetup, report: OnProgress, *, make_generator: MakeGenerator
    ) -> None:
        self._setup = setup
        self._config = setup.config.run
        self._storage = open_patiently(setup.out)
        self._report = report
        self._progress = Progress(attempt="")
        self._reported_at = self._busy_at = 0.0
        self._inputs = InputReader(setup.witness, setup.config.run.allow)
        self._unread_in_a_row = 0
        self._plan = _check_place(setup, self._storage)
        self._prompts = PlannedPrompts(self._storage) if setup.has_prompts else None
        self._asked: dict[int, list[tuple[Prompt, bool]]] = {}
        self._load = partial(load_image, config=self._config, read=self._inputs.read, ask=self._ask)
        self._generator = make_generator(setup.config, self._beat)
        _check_weights(self._generator, setup.weights_sha256)

    def run(self, task: ShardTask) -> ShardResult:
        """Do a shard, whole.

        Raises StorageError for a storage that keeps failing, InputsGoneError where it is that of
        the inputs, InterruptedRunError where image after image cannot be read, ShardError for a
        file that does not hold what was written.
        """
        self._progress = Progress(task.attempt)
        self._mark(task)  # a durable sign of this attempt: it counts if nobody survives it
        self._asked = self._read_prompts(task)
        reach("shard.begun")
        with self._loading(task), closing(self._counted(task)) as rows:
            return publish_shard(self._storage, self._setup, task, rows, lambda: self._progress)

    @contextmanager
    def _loading(self, task: ShardTask) -> Iterator[None]:
        """Have the embeddings of a task's images at hand, where these stand for the images."""
        if self._setup.embeddings is None:
            yield
            return
        with open_shard(self._setup.embeddings, task.shard) as stored:
            self._load = partial(load_embedding, stored=stored, ask=self._ask)
            yield

    def _counted(self, task: ShardTask) -> Generator[ImageRow]:
        with closing(self._rows(task)) as rows:
            for row in rows:
                yield row
                self._progress = self._progress.after(row)

    def _mark(self, task: ShardTask) -> None:
        """Write down durably which attempt this is, and which images are in flight."""
        name = attempt_file(task.shard, task.attempt)
        self._storage.write(name, to_json(self._progress))

    def _read_prompts(self, task: ShardTask) -> dict[int, list[tuple[Prompt, bool]]]:
        """The prompts of a task's images, by index. Raises StorageError, RunError."""
        if (prompts := self._prompts) is None:
            return {}
        return read_with_backoff(lambda: prompts.read(self._plan.shard_rows(task.shard)))

    def _ask(self, index: int, image: Image) -> Question:
        if self._prompts is None:
            return ask_grid(self._generator.prepare, image)
        return ask_prompts(self._generator.prepare, self._asked.get(index, ()), image)

    def _rows(self, task: ShardTask) -> Generator[ImageRow]:
        """One row for each source of the task, in order."""
        kept_indices = self._kept_indices(task.earlier_file)
        ready = {
            i: _crashed(task.sources[i], why)
            for i, why in task.condemned.items()
            if i not in kept_indices
        }
        todo = [i for i in range(len(task.sources)) if i not in ready and i not in kept_indices]
        for i in sorted(set(task.alone).intersection(todo)):
            ready[i] = self._alone(task, i)
        if task.alone:
            self._mark(task)  # none of them is in flight any more
        left = [(i, task.sources[i]) for i in todo if i not in ready]
        with (
            closing(self._kept_rows(task.earlier_file)) as kept,
            closing(self._segmented([] if task.one_by_one else left)) as fresh,
        ):
            for i in range(len(task.sources)):
                if i in ready:
                    yield ready.pop(i)
                elif i in kept_indices:
                    yield next(kept)
                else:
                    yield self._alone(task, i) if task.one_by_one else next(fresh)
        if task.one_by_one:
            self._mark(task)

    def _alone(self, task: ShardTask, index: int) -> ImageRow:
        """The row of an image while no other is in flight, which is written down first."""
        self._progress = replace(self._progress, in_flight=(index,))
        self._mark(task)
        self._progress = replace(self._progress, in_flight=())
        (row,) = self._segmented([(index, task.sources[index])])
        return row

    def _kept_indices(self, earlier_file: str | None) -> set[int]:
        if earlier_file is None:
            return set()
        with self._storage.open(earlier_file) as file:
            statuses = read_statuses(file, earlier_file)
        return {i for i, status in enumerate(statuses) if status not in self._setup.again}

    def _kept_rows(self, earlier_file: str | None) -> Generator[ImageRow]:
        if earlier_file is not None:
            with self._storage.open(earlier_file) as file:
                rows = read_shard(file, earlier_file, candidates=True, embedding=True)
                yield from (row for row in rows if row.status not in self._setup.again)

    def _segmented(self, sources: Iterable[tuple[int, ImageSource]]) -> Generator[ImageRow]:
        with closing(load_ahead(sources, self._config, self._load, self._touch)) as loaded:
            while batch := list(islice(loaded, self._config.images_per_batch)):
                self._check_inputs(batch)
                rows = self._segment(batch, self._generator)
                self._let_go([image.index for image in batch])  # now: none may ask for more
                del batch  # its images, before the next are taken
                yield from rows

    def _check_inputs(self, batch: list[LoadedImage]) -> None:
        """Stop the run where a mount is gone: it would give a million rows of missing images."""
        if self._setup.embeddings is not None:
            return  # no image is read
        for loaded in batch:
            is_unread = loaded.row.status in _UNREAD
            self._unread_in_a_row = self._unread_in_a_row + 1 if is_unread else 0
        if self._unread_in_a_row < self._config.max_unread_in_a_row:
            return
        if self._inputs.has_witness():
            self._unread_in_a_row = 0
            return
        row = batch[-1].row
        raise InterruptedRunError(
            f"{self._unread_in_a_row} images in a row cannot be read on {platform.node()}, "
            f"the last is {row.image_id!r} ({row.status}: {row.error}); "
            "if that is as it should be, set run.max_unread_in_a_row higher"
        )

    def _segment(self, batch: list[LoadedImage], generator: Segmenter) -> list[ImageRow]:
        """The rows of a batch; if it fails, each image by itself, so that one cannot spoil others.

        An image that fails alone is a row with the reason; out of memory, in smaller and smaller
        steps first.
        """
        images = [loaded.image for loaded in batch if loaded.image is not None]
        try:
            results = iter(self._generate(images, generator))
        # Whatever an image makes torch, OpenCV or our own code raise, the run's other rows go on.
        except Exception as error:
            if is_device_lost(error):
                raise  # only a new process can go on
            logger.debug("a batch of %d failed", len(batch), exc_info=True)
            status = "oom" if is_out_of_memory(error) else "crashed"
            reason = f"{type(error).__name__}: {error}"[:_MAX_REASON_CHARS]
        else:
            return [
                loaded.row if loaded.image is None else _with_masks(loaded, next(results))
                for loaded in batch
            ]
        # Not sooner: the error's traceback held the arrays of the step that failed.
        if status == "oom":
            empty_cache()
        if len(batch) > 1:
            return [row for loaded in batch for row in self._segment([loaded], generator)]
        smaller = generator.with_smaller_batches() if status == "oom" else None
        if smaller is not None:
            return self._segment(batch, smaller)
        logger.warning("%s: %s: %s", batch[0].row.image_id, status, reason)
        return [replace(batch[0].row, status=status, error=reason)]

    def _generate(self, images: list, generator: Segmenter) -> list[ImageResult]:
        if not images:
            return []
        self._busy_at = time.perf_counter()
        try:
            prepared = [prepared_again(image, generator.prepare) for image in images]
            return generator.generate_batch(prepared)
        finally:
            self._count_busy()

    def _touch(self, index: int) -> None:
        """Say that an image is about to be read."""
        in_flight = (*self._progress.in_flight, index)
        self._advance(replace(self._progress, in_flight=in_flight))

    def _let_go(self, indices: list[int]) -> None:
        in_flight = tuple(i for i in self._progress.in_flight if i not in indices)
        self._advance(replace(self._progress, in_flight=in_flight))

    def _beat(self) -> None:
        """A step inside the generator: news once a second, that this worker is not stuck."""
        self._count_busy()
        if time.monotonic() - self._reported_at > _BEAT_S:
            self._advance(self._progress)

    def _count_busy(self) -> None:
        now = time.perf_counter()
        busy_s = self._progress.busy_s + now - self._busy_at
        self._busy_at = now
        self._progress = replace(self._progress, busy_s=busy_s)

    def _advance(self, progress: Progress) -> None:
        self._progress = replace(progress, beat=progress.beat + 1)
        self._reported_at = time.monotonic()
        self._report(self._progress)


def publish_shard(
    storage: Storage,
    setup: WorkerSetup,
    task: ShardTask,
    rows: Iterable[ImageRow],
    progress: Callable[[], Progress],
) -> ShardResult:
    """Write a task's rows, look at the finished file, and publish it.

    progress: asked when all is done. Raises StorageError for a storage that keeps failing,
    ShardError for a file that does not hold what was written.
    """
    name = shard_file(task.shard, task.attempt)
    metadata = {
        **setup.metadata,
        "amg.shard": str(task.shard),
        "amg.attempt": task.attempt,
        "amg.plan": setup.fingerprint,
    }
    with storage.staged(name) as staged:
        with ShardWriter(staged, metadata) as writer:
            for row in rows:
                writer.write(row)
        sha256 = check_shard(staged, [source.image_id for source in task.sources])
        n_bytes = staged.stat().st_size
        storage.publish(staged, name)
    done = progress()
    return ShardResult(task.shard, task.attempt, name, n_bytes, sha256, done.tally, done.busy_s)


def _check_place(setup: WorkerSetup, storage: Storage) -> Plan:
    """The plan; another node may lack a mount, or a right, or hold another folder of the name."""
    plan = read_plan(storage)
    if plan is None or plan.fingerprint != setup.fingerprint:
        what = "holds no run" if plan is None else "holds another run"
        raise BlockedRunError(f"{storage.url()} {what} on {platform.node()}: is it mounted there?")
    _check_writing(storage)
    witness = setup.witness
    if witness is None:
        return plan
    try:
        read_with_backoff(lambda: read_source(witness, allow=setup.config.run.allow))
    except ImageError as error:
        raise BlockedRunError(
            f"{witness.uri} can be read by the driver and not on {platform.node()}: {error}; "
            "is it mounted there?"
        ) from error
    return plan


def _check_writing(storage: Storage) -> None:
    """Go the way of a shard's file, with a small one: else a full disk here would eat shards."""
    name = f"{DATA}/.start.{uuid.uuid4().hex[:8]}.partial"
    try:
        with storage.staged(name) as staged:
            staged.write_bytes(bytes(512))
            storage.publish(staged, name)
    except StorageError as error:
        raise StorageError(f"on {platform.node()}: {error}", passing=error.passing) from error
    except OSError as error:
        place = storage.local_folder or tempfile.gettempdir()
        text = f"on {platform.node()}: cannot write to {place}: {error.strerror or error}"
        raise StorageError(text, passing=is_passing(error)) from error
    with suppress(StorageError):  # not every store lets us delete: then gc finds it
        storage.delete([name])


def _check_weights(generator: Segmenter, planned_sha256: str | None) -> None:
    """Another node may hold another file under the same name."""
    model = getattr(generator, "model", None)
    if model is not None and planned_sha256 not in (None, model.info.weights_sha256):
        raise CheckpointError(
            f"this worker's weights of {model.info.name} have sha256 {model.info.weights_sha256}, "
            f"but the run was planned with {planned_sha256}"
        )


def _crashed(source: ImageSource, reason: str) -> ImageRow:
    return ImageRow(source.image_id, source.uri, status="crashed", error=reason[:_MAX_REASON_CHARS])


def _with_masks(loaded: LoadedImage, result: ImageResult) -> ImageRow:
    errors = loaded.row.prompt_errors
    if loaded.prompts is not None:
        answered = [mask.prompt for mask in result.masks]
        errors = (*(errors or ()), *unanswered(loaded.prompts, answered))
    return replace(
        loaded.row,
        prompt_errors=errors,
        status="ok" if result.masks or result.embedding is not None else "empty",
        masks=result.masks,
        candidates=result.candidates,
        embedding=result.embedding,
        encode_s=result.seconds.encode,
        masks_s=result.seconds.masks,
    )
