"""Plans: what decides them, and that they stay what they are."""

import http.server
import json
import os
import shutil
import signal
import tarfile
import threading
import uuid
from dataclasses import replace
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from amg import ConfigError
from amg.config import Config, ModelConfig, load_config
from amg.errors import InterruptedRunError, StorageError
from amg.inputs.sources import list_sources
from amg.models.zoo import registry
from amg.models.zoo.download import PublishedFile, sha256_of
from amg.runs.folder import read_commits
from amg.runs.planned import PlannedInputs
from amg.storage.opened import OpenFile
from amg.storage.patient import open_patiently
from amg.storage.stores import ObjectStorage, open_storage
from pipelines.corpus.commit import lost_attempts
from pipelines.corpus.listing import Job
from pipelines.corpus.plan import identity, prepare, survey
from pipelines.corpus.settings import resolve
from tests.pipelines.helpers import QUICK, make_folder, make_run


def _job(folder, *overrides, **options):
    return Job([str(folder)], load_config(None, [*QUICK, *overrides]), **options)


def _prepare(folder, out, *overrides):
    return prepare(_job(folder, *overrides), open_storage(out))[0]


def test_a_plan_is_the_same_wherever_it_is_made(tmp_path):
    folder = make_folder(tmp_path / "in", 20)
    one, two = (_prepare(folder, tmp_path / name) for name in ("one", "two"))
    assert one.fingerprint == two.fingerprint
    assert one.run_id != two.run_id
    assert one.n_images == 20
    assert [list(one.shard_rows(s)) for s in range(one.n_shards)] == [
        list(range(8)),
        list(range(8, 16)),
        list(range(16, 20)),
    ]


def test_a_run_is_planned_and_taken_up_through_passing_failures(tmp_path, monkeypatch):
    """Each operation on each file fails once, and the inputs' storage too."""
    here = uuid.uuid4().hex
    inputs, out = open_storage(f"memory://{here}/in"), f"memory://{here}/out"
    for name in ("a.png", "b.png"):
        inputs.write(name, b"")
    failed, call, ls = set(), ObjectStorage._call, MemoryFileSystem.ls

    def fail_once(self, verb, name, operation):
        if (verb, name) not in failed:
            failed.add((verb, name))
            raise StorageError("busy")
        return call(self, verb, name, operation)

    def list_later(self, path, **options):
        if path not in failed:
            failed.add(path)
            raise TimeoutError
        return ls(self, path, **options)

    monkeypatch.setattr("amg.storage.retry.WAITS_S", (0, 0, 0))
    monkeypatch.setattr("amg.storage.retry.INPUT_WAITS_S", (0,))
    monkeypatch.setattr(ObjectStorage, "_call", fail_once)
    monkeypatch.setattr(MemoryFileSystem, "ls", list_later)
    for _ in range(2):
        failed.clear()
        storage = open_patiently(out)
        plan, _ = prepare(_job(f"memory://{here}/in"), storage)
        assert (read_commits(storage, plan), lost_attempts(storage, [0])) == ({}, {})
        assert [len(batch) for batch in PlannedInputs(storage).batches()] == [2]
        assert {("read", "plan.json"), ("list", "commits"), ("list", "attempts")} < failed


@pytest.mark.parametrize(
    "change", ["generator.pred_iou_thresh=0.5", "model.imgsz=224", "run.images_per_shard=7"]
)
def test_what_decides_the_rows_changes_the_fingerprint(tmp_path, change):
    folder = make_folder(tmp_path / "in", 2)
    plain = _prepare(folder, tmp_path / "a")
    assert _prepare(folder, tmp_path / "b", change).fingerprint != plain.fingerprint


BUILT_IN = Path(registry.__file__).parents[1] / "weights" / "nano.safetensors"


def planned_model(checkpoint, name=None):
    """The resolved configuration of a model, and its part of the run's identity."""
    named = {"checkpoint": str(checkpoint), "name": name}
    config, sha256 = resolve(Config(model=ModelConfig(**named)))
    return config, identity(config, sha256, "")["model"]


def test_a_checkpoint_without_a_name_is_planned_as_what_it_is(tmp_path):
    own = tmp_path / "my_photos.safetensors"
    shutil.copy(BUILT_IN, own)
    config, model = planned_model(own)
    assert config.model.name is None  # workers recognise it too
    assert config.generator.points_per_side == 24  # its family's
    assert (model["name"], model["imgsz"]) == ("my_photos", None)
    assert model["weights_sha256"] == sha256_of(own)
    named, as_nano = planned_model(own, "nano")
    assert named.model.name == as_nano["name"] == "nano"


def test_a_registered_models_own_file_is_that_model(tmp_path, monkeypatch):
    own = tmp_path / "downloaded.pth"
    shutil.copy(BUILT_IN, own)
    published = PublishedFile("x.pth", "https://127.0.0.1:9/x.pth", sha256_of(own))
    known = replace(registry.MODELS["mobile_sam"], weights=published)
    monkeypatch.setattr(registry, "MODELS", {**registry.MODELS, "mobile_sam": known})
    config, model = planned_model(own)
    assert config.model.name == model["name"] == "mobile_sam"


def test_planned_inputs_are_the_sources_that_were_listed(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.corpus.duplicates.BATCH", 6)  # several row groups
    folder = make_folder(tmp_path / "in", 20)
    plan = _prepare(folder, tmp_path / "out")
    inputs = PlannedInputs(open_storage(tmp_path / "out"))
    listed = list(list_sources([folder]))
    assert inputs.read(range(20)) == listed
    assert inputs.read(plan.shard_rows(1)) == listed[8:16]
    assert inputs.read(range(5, 7)) == listed[5:7]
    assert inputs.read(range(2)) == listed[:2]
    inputs.close()


def test_a_tar_that_was_written_anew_is_another_input(tmp_path):
    """Its members have the same names, and lie elsewhere."""
    folder = make_folder(tmp_path / "in", 3)

    def pack(*names):
        with tarfile.open(tmp_path / "x.tar", "w") as archive:
            for name in names:
                archive.add(folder / name, name)
        return _prepare(tmp_path / "x.tar", tmp_path / names[0]).fingerprint

    (folder / "001.png").write_bytes((folder / "000.png").read_bytes() * 20)
    first = pack("000.png", "001.png", "002.png")
    (folder / "001.png").write_bytes(b"short")
    (tmp_path / "000.png").rename(tmp_path / "away")
    assert pack("000.png", "001.png", "002.png") != first


def test_a_run_among_its_images_is_planned_again_without_its_report(tmp_path):
    folder = make_folder(tmp_path / "in", 3)
    first = _prepare(folder, folder / "out")
    (folder / "out" / "report").mkdir()
    shutil.copy(folder / "000.png", folder / "out" / "report")
    assert _prepare(folder, folder / "out") == first


def test_duplicates_are_named_and_nothing_is_written(tmp_path):
    folder = make_folder(tmp_path / "in", 3)
    job = Job([str(folder), str(folder)], load_config(None, QUICK))
    with pytest.raises(ConfigError, match=r"3 image ids .*'000\.png'"):
        prepare(job, open_storage(tmp_path / "out"))
    assert not (tmp_path / "out" / "plan.json").exists()
    assert not (tmp_path / "out" / "inputs.parquet").exists()
    with pytest.raises(ConfigError, match="3 image ids"):
        survey(job)


def test_a_survey_counts_and_writes_nothing(tmp_path):
    folder = make_folder(tmp_path / "in", 5)
    before = sorted(tmp_path.rglob("*"))
    listing, config = survey(_job(folder, limit=4))
    assert listing.n_images == 4
    assert listing.n_bytes == sum((folder / f"{i:03d}.png").stat().st_size for i in range(4))
    assert listing.n_unknown == 0
    assert config.generator.points_per_side == 24  # nano's own
    assert sorted(tmp_path.rglob("*")) == before


def test_a_damaged_plan_is_named(tmp_path):
    folder = make_folder(tmp_path / "in", 2)
    _prepare(folder, tmp_path / "out")
    path = tmp_path / "out" / "plan.json"
    values = json.loads(path.read_text())
    del values["n_images"]
    path.write_text(json.dumps(values))
    with pytest.raises(Exception, match=r"plan\.json"):
        _prepare(folder, tmp_path / "out")


def _plan_ids(tmp_path, lines, how):
    """The ids that a list's images are planned with; the list is planned twice."""
    (tmp_path / "list.txt").write_text("".join(f"{line}\n" for line in lines))
    out = tmp_path / f"out-{how}"
    plan = _prepare(tmp_path / "list.txt", out, f"run.on_duplicate={how}")
    assert _prepare(tmp_path / "list.txt", out, f"run.on_duplicate={how}") == plan
    inputs = PlannedInputs(open_storage(out))
    sources = inputs.read(range(plan.n_images))
    inputs.close()
    return [(source.image_id, source.path.decode().rpartition("/")[2]) for source in sources]


@pytest.fixture(params=[None, 0, 1], ids=["hash", "all alike", "two hashes"])
def weak_hash(request, monkeypatch):
    """Hashes as they are, and such that are equal for ids that are not."""
    if request.param is not None:
        weak = lambda image_id: sum(image_id.encode()) & request.param  # noqa: E731
        monkeypatch.setattr("amg.inputs.ids._hash", weak)
        monkeypatch.setattr("pipelines.corpus.duplicates._AT_ONCE", 3)  # several passes
    monkeypatch.setattr("pipelines.corpus.duplicates.BATCH", 2)


def _number(ids):
    """Numbers by the rule, without any hash."""
    given, seen, last = [], set(), {}
    for image_id in ids:
        name = image_id
        while image_id in seen and (name in ids or name == image_id):
            last[image_id] = last.get(image_id, 1) + 1
            name = f"{image_id}#{last[image_id]}"
        seen.add(image_id)
        given.append(name)
    return given


LINES = ["a", "b", "b#1", "a", "c#2", "a#2", "c", "a", "b", "c", "a#2", "d"]


def test_later_images_of_an_id_are_left_out(tmp_path, weak_hash, caplog):
    found = _plan_ids(tmp_path, LINES, "skip")
    assert found == [(name, name) for name in dict.fromkeys(LINES)]
    assert "5 images have an id that was there before: left out" in caplog.text


def test_later_images_of_an_id_are_numbered(tmp_path, weak_hash, caplog):
    found = _plan_ids(tmp_path, LINES, "number")
    assert found == list(zip(_number(LINES), LINES, strict=True))
    assert found[3] == ("a#3", "a")
    assert len({name for name, _ in found}) == len(LINES)
    assert "5 images have an id that was there before: numbered" in caplog.text


def test_ids_of_equal_hash_are_not_taken_for_one(tmp_path, weak_hash):
    names = sorted({*LINES})
    assert _plan_ids(tmp_path, names, "refuse") == [(name, name) for name in names]
    (tmp_path / "list.txt").write_text("\n".join(LINES))
    job = _job(tmp_path / "list.txt")
    for plan_it in (survey, lambda job: prepare(job, open_storage(tmp_path / "new"))):
        with pytest.raises(ConfigError, match=r"4 image ids .*--on-duplicate skip or number"):
            plan_it(job)


def test_a_survey_counts_duplicates(tmp_path):
    (tmp_path / "list.txt").write_text("\n".join(LINES))
    listing, _ = survey(_job(tmp_path / "list.txt", "run.on_duplicate=skip"))
    assert (listing.n_images, listing.n_later) == (7, 5)


class _TellsOnEachRequest(http.server.SimpleHTTPRequestHandler):
    """A server whose answer never comes: a signal does."""

    def do_HEAD(self):
        os.kill(os.getpid(), signal.SIGTERM)
        self.server.stopped.wait()

    do_GET = do_HEAD  # noqa: N815

    def log_message(self, *args):
        pass


def test_a_signal_while_a_server_is_asked_interrupts(tmp_path):
    """It comes while the main thread waits for fsspec's, which does the asking."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _TellsOnEachRequest) as server:
        server.stopped = threading.Event()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with pytest.raises(InterruptedRunError, match="SIGTERM while the run was planned"):
                make_run(f"http://127.0.0.1:{server.server_port}/x.jpg", tmp_path / "out").execute()
        finally:
            server.stopped.set()
            server.shutdown()


def _signalling(function):
    def call(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGINT)
        return function(*args, **kwargs)

    return call


@pytest.mark.parametrize(
    ("name", "owner", "method"),
    [
        ("", MemoryFileSystem, "ls"),
        ("x.tar", tarfile.TarInfo, "fromtarfile"),
        ("x.tar", OpenFile, "readinto"),
        ("x.parquet", OpenFile, "readinto"),
        ("x.parquet", pq.ParquetFile, "iter_batches"),
        ("list.txt", OpenFile, "readinto"),
    ],
)
def test_a_signal_is_no_fault_of_what_is_listed(tmp_path, monkeypatch, name, owner, method):
    store = f"memory://{uuid.uuid4().hex}"
    fsspec.filesystem("memory").pipe(f"{store}/a.jpg", b"")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(__file__, "a.jpg")
    pq.write_table(pa.table({"uri": ["a.jpg"]}), tmp_path / "x.parquet")
    (tmp_path / "list.txt").write_text("a.jpg\n")
    monkeypatch.setattr(owner, method, _signalling(getattr(owner, method)))
    with pytest.raises(InterruptedRunError, match="SIGINT while the run was planned"):
        make_run(tmp_path / name if name else store, tmp_path / "out").execute()


@pytest.mark.usefixtures("forked")
def test_a_signal_whose_exception_is_lost_stops_the_driver(tmp_path, monkeypatch):
    class Signalling:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)  # Python says what it raises, and goes on

    folder = make_folder(tmp_path / "in", 3)
    monkeypatch.setattr("pipelines.corpus.run.read_commits", lambda *a: Signalling() and {})
    monkeypatch.setattr("sys.unraisablehook", lambda _: None)
    report = make_run(folder, tmp_path / "out").execute()
    assert (report.stopped, report.is_complete) == ("SIGTERM", False)
