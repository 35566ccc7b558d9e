"""One worker by itself: rows in order, reading ahead within a budget, failures as rows."""

import pickle
import platform
import re
import threading
import time
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from amg.config import Config, RunConfig, load_config
from amg.errors import ConfigError, StorageError
from amg.inputs.reading import read_source
from amg.inputs.sources import list_sources
from amg.records import ImageResult
from amg.runs.folder import commit_file
from amg.runs.shards import read_shard
from amg.storage import stores
from pipelines.corpus.asking import Question
from pipelines.corpus.engines.local import LocalEngine
from pipelines.corpus.messages import ShardTask, WorkerSetup
from pipelines.corpus.prefetch import ByteBudget, load_ahead, load_image
from pipelines.corpus.worker import segmenting
from tests.pipelines.helpers import FINGERPRINT, wait_until, write_plan
from tests.pipelines.stub import make_stub


class FailingGenerator:
    """Fails on batches that hold a white image, with the error that the test wants."""

    def __init__(self, error, smallest=1):
        self.error, self.smallest = error, smallest

    def prepare(self, image):
        return image

    def generate_batch(self, images):
        if any(image.min() == 255 for image in images) and self.smallest > 0:
            raise self.error
        return [ImageResult(image.shape[:2], ()) for image in images]

    def with_smaller_batches(self):
        return None if self.smallest == 1 else FailingGenerator(self.error, self.smallest // 4)


def _run(tmp_path, generator, task_options=None, **options):
    """What a worker makes of five images of which the third is white, and what it reports."""
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(5):
        Image.new("RGB", (8, 8), "white" if i == 2 else "black").save(folder / f"{i}.png")
    config = load_config(None, ["run.images_per_batch=4"])
    make_worker = segmenting(lambda *_: generator)
    setup = WorkerSetup(str(tmp_path / "out"), config, make_worker, FINGERPRINT, None)
    write_plan(tmp_path / "out", n_images=5)
    reports = []
    worker = setup.make_worker(setup, reports.append)
    task = ShardTask(7, "abcd", tuple(list_sources([folder])), **(task_options or {}))
    result = worker.run(task)
    assert not (tmp_path / "out" / commit_file(7)).exists()  # that is the driver's
    return result, list(read_shard(tmp_path / "out" / result.file)), reports


def test_a_place_that_takes_no_shards_has_no_worker(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    setup = WorkerSetup(str(tmp_path / "out"), Config(), segmenting(make_stub), FINGERPRINT, None)
    write_plan(tmp_path / "out", n_images=5)
    for owner, name in ((Path, "write_bytes"), (stores, "move")):
        with monkeypatch.context() as patch, pytest.raises(StorageError) as caught:
            patch.setattr(owner, name, full)
            setup.make_worker(setup, print)
        assert re.fullmatch(
            rf"on {platform.node()}: .*cannot write .*{tmp_path}.*: No space left on device",
            str(caught.value),
        )
        assert not caught.value.passing
        assert not list((tmp_path / "out" / "data").iterdir())


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MemoryError("no more"), "oom"),
        (torch.OutOfMemoryError("CUDA out of memory"), "oom"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "oom"),
        (RuntimeError("a bug"), "crashed"),
    ],
)
def test_an_image_that_cannot_be_segmented_is_a_row_and_spoils_no_other(tmp_path, error, status):
    result, rows, _ = _run(tmp_path, FailingGenerator(error))
    assert [row.image_id for row in rows] == [f"{i}.png" for i in range(5)]
    assert [row.status for row in rows] == ["empty", "empty", status, "empty", "empty"]
    assert str(error) in rows[2].error
    assert result.tally.statuses == {"empty": 4, status: 1}


def test_out_of_memory_is_met_with_smaller_steps(tmp_path):
    _, rows, _ = _run(tmp_path, FailingGenerator(MemoryError(), smallest=3))
    assert [row.status for row in rows] == ["empty"] * 5


def test_what_failed_is_let_go_before_it_is_tried_again(tmp_path):
    """Smaller steps beside the arrays of the larger ones would fail for want of memory too."""
    held = []

    class Hoarder(FailingGenerator):
        def generate_batch(self, images):
            assert all(reference() is None for reference in held)
            arrays = np.zeros(3)
            held.append(weakref.ref(arrays))
            if self.smallest > 0 and any(image.min() == 255 for image in images):
                raise MemoryError
            return [ImageResult(image.shape[:2], ()) for image in images]

        def with_smaller_batches(self):
            return None if self.smallest == 1 else Hoarder(self.error, self.smallest // 4)

    _, rows, _ = _run(tmp_path, Hoarder(MemoryError(), smallest=3))
    assert [row.status for row in rows] == ["empty"] * 5
    assert len(held) > 4


def test_an_image_that_cannot_be_prepared_is_segmented_as_it_is(tmp_path):
    class Unprepared(FailingGenerator):
        def prepare(self, image):
            raise MemoryError("no room for its crops")

    _, rows, _ = _run(tmp_path, Unprepared(RuntimeError("a bug")))
    assert [row.status for row in rows] == ["empty", "empty", "crashed", "empty", "empty"]
    assert rows[2].error == "RuntimeError: a bug"


def test_a_lost_device_ends_the_worker(tmp_path):
    with pytest.raises(torch.AcceleratorError):
        _run(tmp_path, FailingGenerator(torch.AcceleratorError("CUDA error: illegal address")))


def test_suspects_are_alone_and_the_condemned_are_not_touched(tmp_path):
    options = {"alone": (1, 3), "condemned": {2: "killed two"}}
    _, rows, reports = _run(tmp_path, FailingGenerator(RuntimeError()), options)
    assert [row.image_id for row in rows] == [f"{i}.png" for i in range(5)]
    assert rows[2].status == "crashed"
    assert rows[2].error == "killed two"
    seen = [report.in_flight for report in reports]
    assert seen[:4] == [(1,), (), (3,), ()]
    assert not any(2 in indices for indices in seen)
    assert seen[-1] == ()


def test_one_by_one_never_has_two_in_flight(tmp_path):
    _, rows, reports = _run(tmp_path, FailingGenerator(RuntimeError()), {"one_by_one": True})
    assert len(rows) == 5
    assert max(len(report.in_flight) for report in reports) == 1


def _load_ahead(sources, config, read, ask, *announce):
    return load_ahead(
        sources, config, partial(load_image, config=config, read=read, ask=ask), *announce
    )


def _as_it_is(_, rgb):
    return Question(rgb)


def test_images_are_announced_before_they_are_read(tmp_path):
    sources = list(enumerate(list_sources([_pictures(tmp_path, 6)])))
    announced = []

    def read(source):
        assert any(source.image_id == f"{i:02d}.png" for i in announced)
        return (tmp_path / source.image_id).read_bytes()

    loaded = list(_load_ahead(sources, RunConfig(), read, _as_it_is, announced.append))
    assert [image.index for image in loaded] == announced == list(range(6))


def _pictures(folder, n):
    for i in range(n):
        Image.new("RGB", (100, 100), (i, 0, 0)).save(folder / f"{i:02d}.png")
    return folder


@pytest.mark.parametrize("budget", [1, 30_000, 70_000, 10**9])
def test_images_stay_within_the_budget(tmp_path, budget, monkeypatch):
    """At most the budget, or one image that is larger than it, waits at any time."""
    sources = list(enumerate(list_sources([_pictures(tmp_path, 12)])))
    most = used = 0
    take, change = ByteBudget.take, ByteBudget.change

    def counted_take(self, turn, n_bytes):
        nonlocal most, used
        take(self, turn, n_bytes)
        used += n_bytes
        most = max(most, used)

    def counted_change(self, n_bytes):
        nonlocal used
        used += n_bytes
        change(self, n_bytes)

    monkeypatch.setattr(ByteBudget, "take", counted_take)
    monkeypatch.setattr(ByteBudget, "change", counted_change)
    config = RunConfig(prefetch_bytes=budget, decode_threads=4)
    loaded = []
    for image in _load_ahead(sources, config, read_source, lambda _, rgb: Question(rgb[:50])):
        time.sleep(0.005)
        loaded.append(image)
    assert [int(image.image[0, 0, 0]) for image in loaded] == list(range(12))
    assert most <= max(budget, 30_000)
    assert used == 0


def test_images_wait_for_room_that_prepared_ones_take(tmp_path):
    """Crops may take more than their image: then fewer are decoded ahead."""
    sources = list(enumerate(list_sources([_pictures(tmp_path, 12)])))
    lock, alive, most = threading.Lock(), 0, 0

    def prepare(_, rgb):
        nonlocal alive, most
        with lock:
            alive += 1
            most = max(most, alive)
        return Question(np.concatenate([rgb] * 10))  # 300,000 bytes

    config = RunConfig(prefetch_bytes=600_000, decode_threads=3)
    for i, _ in enumerate(_load_ahead(sources, config, read_source, prepare)):
        if i == 0:
            wait_until(lambda: alive > 1)  # noqa: B023 - changed by other threads
        time.sleep(0.02)
        with lock:
            alive -= 1
    # Two fill the budget; one is with its taker, and each thread may have begun one more.
    assert 1 < most <= 2 + 1 + 3


def test_bad_images_keep_their_turn(tmp_path):
    folder = _pictures(tmp_path, 8)
    for i in (0, 3, 4):
        (folder / f"{i:02d}.png").write_bytes(b"")
    sources = list(enumerate(list_sources([folder])))
    config = RunConfig(prefetch_bytes=1, decode_threads=3)
    loaded = list(_load_ahead(sources, config, read_source, _as_it_is))
    assert [image.index for image in loaded if image.image is None] == [0, 3, 4]


def test_leaving_early_ends_the_threads(tmp_path):
    before = threading.active_count()
    sources = list(enumerate(list_sources([_pictures(tmp_path, 12)])))
    loaded = _load_ahead(sources, RunConfig(prefetch_bytes=1), read_source, _as_it_is)
    next(loaded)
    loaded.close()
    assert threading.active_count() == before


def test_a_setup_travels_by_name_and_one_of_a_script_is_refused():
    setup = WorkerSetup("out", Config(), segmenting(make_stub), FINGERPRINT, None)
    assert pickle.loads(pickle.dumps(setup)).make_worker.keywords == {"make_generator": make_stub}

    def of_a_script(config, heartbeat):
        return make_stub(config, heartbeat)

    of_a_script.__module__ = "__main__"
    for make in (of_a_script, partial(of_a_script)):
        setup = replace(setup, make_worker=segmenting(make))
        with pytest.raises(ConfigError, match=r"make_generator: put .*of_a_script into a module"):
            LocalEngine(setup, 1)


def test_a_maker_that_cannot_be_sent_is_refused():
    setup = WorkerSetup("out", Config(), segmenting(lambda *_: None), FINGERPRINT, None)
    with pytest.raises(
        ConfigError, match=r"make_generator: it cannot be sent to workers: .*lambda"
    ):
        LocalEngine(setup, 1)
