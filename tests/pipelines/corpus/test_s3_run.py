"""Runs whose inputs and output are on an object store, also one that fails now and then."""

import json
import threading
from contextlib import contextmanager

import pytest

from amg.config import load_config
from amg.errors import RunError, StorageError
from amg.runs.folder import commit_file
from amg.runs.results import open_run
from amg.storage.stores import open_storage
from pipelines.corpus.gc import collect_garbage
from pipelines.corpus.lease import hold_lease
from pipelines.corpus.run import Run, retry_failed, summarize
from pipelines.corpus.verify import verify
from tests.flaky_proxy import FlakyProxy
from tests.pipelines.helpers import QUICK, contents, make_folder
from tests.pipelines.helpers import make_run as make_any_run
from tests.pipelines.stub import make_embedding_stub, make_prompted_stub, make_stub, save_image

pytestmark = pytest.mark.usefixtures("forked_workers")
N_IMAGES = 8  # in three shards
BAD = 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = make_folder(tmp_path_factory.mktemp("photos"), N_IMAGES)
    (folder / f"{BAD:03d}.png").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def expected(folder, tmp_path_factory):
    """What the run gives on this machine."""
    out = tmp_path_factory.mktemp("local")
    make_run(folder, out).execute()
    return contents(out)


@pytest.fixture
def inputs(folder, s3):
    storage = open_storage(f"s3://{s3}/photos")
    for path in folder.iterdir():
        storage.write(path.name, path.read_bytes())
    return storage.url()


@pytest.fixture
def out(s3):
    return f"s3://{s3}/some/run"


def make_run(inputs, out, *overrides, **options):
    return make_any_run(inputs, out, "run.images_per_shard=3", *overrides, **options)


def _problems(out, processes=1):
    return [text for verdict in verify(out, processes) for text in verdict.problems]


def test_prompts_are_kept_on_an_object_store_too(inputs, out):
    lines = [{"file_name": f"{i % 6:03d}.png", "bbox": [i, 1, 5, 3]} for i in range(12)]
    prompts = "\n".join(map(json.dumps, lines)).encode()
    open_storage(inputs).write("boxes.jsonl", prompts)
    asked = {"prompts": f"{inputs}/boxes.jsonl"}

    def run():
        config = load_config(None, [*QUICK, "run.images_per_shard=3"])
        return Run([f"{inputs}/*.png"], out, config, make_generator=make_prompted_stub, **asked)

    assert run().execute().tally.masks == 10  # two were about an image that cannot be read
    open_storage(out).delete([commit_file(1)])
    assert run().execute().is_complete
    ids = [mask.prompt_id for row in open_run(out).rows() for mask in row.masks]
    assert ids == [str(i + more) for i in range(6) if i != BAD for more in (0, 6)]
    assert _problems(out) == []


def test_embeddings_are_kept_on_an_object_store_too(inputs, out, expected):
    config = load_config(None, [*QUICK, "run.images_per_shard=3"])
    kept = f"{out}-embeddings"
    Run([inputs], kept, config, embed="float16", make_generator=make_embedding_stub).execute()
    Run([], out, config, embeddings=kept, make_generator=make_stub).execute()
    assert contents(out) == expected


def test_a_run_on_an_object_store_gives_the_rows_of_a_local_one(inputs, out, expected):
    report = make_run(inputs, out).execute()
    assert report.is_complete
    assert report.tally.statuses == {"ok": N_IMAGES - 1, "decode_error": 1}
    assert contents(out) == expected
    assert all(row.uri == f"{inputs}/{row.image_id}" for row in open_run(out).rows())
    assert _problems(out, 2) == []
    storage = open_storage(out)
    assert {"plan.json", "inputs.parquet", "config.yaml", "report.json", "_SUCCESS"} == set(
        storage.list("")
    )
    assert storage.list("leases") == storage.list("attempts") == {}
    assert len(storage.list("data")) == 3
    _check_events(storage)
    _check_retry(inputs, out, expected)


def _check_events(storage):
    (name,) = storage.list("events")
    events = [json.loads(line)["event"] for line in storage.read(f"events/{name}").splitlines()]
    assert events[0] == "started"
    assert events.count("committed") == 3
    assert events[-1] == "ended"


def _check_retry(inputs, out, expected):
    """What failed is done again, and the file before is garbage."""
    open_storage(inputs).delete([f"{BAD:03d}.png"])
    report = retry_failed(out, make_generator=make_stub)
    assert report.tally.statuses == {"missing": 1, "ok": N_IMAGES - 1}
    assert [row for row in contents(out) if row[1] == "ok"] == [r for r in expected if r[1] == "ok"]
    assert _problems(out) == []
    assert len(collect_garbage(out)) == 1
    assert len(open_storage(out).list("data")) == 3
    assert collect_garbage(out) == {}


def test_a_run_that_is_taken_up_does_what_is_missing(inputs, out, expected):
    storage = open_storage(out)
    assert not make_run(inputs, out, slice_=(0, 2)).execute().is_complete
    assert storage.size("_SUCCESS") is None
    kept = {name: storage.read(f"data/{name}") for name in storage.list("data")}
    commits = {name: storage.read(f"commits/{name}") for name in storage.list("commits")}
    storage.write("data/part-00001.deadbeef.parquet", b"of an attempt that was lost")

    report = make_run(inputs, out).execute()

    assert (report.is_complete, report.session_images) == (True, 3)
    assert {name: storage.read(f"data/{name}") for name in kept} == kept
    assert {name: storage.read(f"commits/{name}") for name in commits} == commits
    assert contents(out) == expected
    assert len(storage.list("events")) == 2
    assert list(collect_garbage(out)) == ["data/part-00001.deadbeef.parquet"]
    report = make_run(inputs, out).execute()
    assert (report.is_complete, report.session_images) == (True, 0)


def test_a_run_from_here_to_there_and_a_second_driver(folder, out, expected):
    with hold_lease(open_storage(out)), pytest.raises(RunError, match="is in use"):
        make_run(folder, out).execute()
    make_run(folder, out).execute()
    assert contents(out) == expected


def test_beginning_anew_replaces_the_run(inputs, out):
    make_run(inputs, out, limit=5).execute()
    with pytest.raises(RunError, match="5 images planned, 2 now"):
        make_run(inputs, out, limit=2).execute()
    make_run(inputs, out, limit=2, overwrite=True).execute()
    assert [row[0] for row in contents(out)] == [f"{i:03d}.png" for i in range(2)]
    assert _problems(out) == []
    assert len(open_storage(out).list("data")) == 1


@pytest.fixture
def flaky(s3_endpoint, s3, monkeypatch):
    """Puts a proxy with these faults between us, our children and the store."""
    import s3fs

    @contextmanager
    def start(fault):
        proxy = FlakyProxy(s3_endpoint, fault)
        thread = threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        with monkeypatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", proxy.address)
            ours = dict(s3fs.S3FileSystem._cache)
            s3fs.S3FileSystem.clear_instance_cache()
            yield proxy
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem._cache.update(ours)
        proxy.shutdown()
        proxy.server_close()
        thread.join()

    return start


def _every(n, faults):
    """Each n-th request fails, in the ways that are named, in turn."""
    count = 0

    def fault(method, path):
        nonlocal count
        count += 1
        return faults[count // n % len(faults)] if count % n == 0 else None

    return fault


def _first(n, fault, method, part):
    """The first n requests of this kind fail."""
    left = n

    def choose(asked, path):
        nonlocal left
        if asked == method and part in path and left:
            left -= 1
            return fault
        return None

    return choose


def test_requests_that_fail_now_and_then_change_nothing(flaky, inputs, out, expected):
    with flaky(_every(6, ("busy", "reset", "lost", "cut"))) as proxy:
        report = make_run(inputs, out).execute()
    assert {fault for fault, *_ in proxy.faults} >= {"busy", "reset", "lost", "cut"}
    assert report.is_complete
    assert contents(out) == expected
    assert _problems(out) == []


def test_an_upload_that_arrives_short_is_not_committed(flaky, inputs, out, expected):
    with flaky(_first(1, "truncate", "PUT", "/data/")) as proxy:
        report = make_run(inputs, out).execute()
    assert len(proxy.faults) == 1
    assert report.is_complete
    assert contents(out) == expected
    assert _problems(out) == []


def _refuse_writes(where):
    return lambda method, path: "denied" if method == "PUT" and where in path else None


def test_a_store_that_takes_no_commits_ends_the_run_which_can_be_taken_up(
    flaky, folder, out, expected
):
    with (
        flaky(_refuse_writes("/commits/")) as proxy,
        pytest.raises(StorageError, match=f"cannot create {out}/commits/"),
    ):
        make_run(folder, out).execute()
    assert len(proxy.faults) == 1
    _check_taken_up(folder, out, expected)


def test_a_store_that_takes_no_shards_is_found_out_before_any_work(flaky, folder, out, expected):
    with (
        flaky(_refuse_writes("/data/")),
        pytest.raises(StorageError, match=f"cannot write {out}/data/"),
    ):
        make_run(folder, out).execute()
    _check_taken_up(folder, out, expected)


def test_shards_that_cannot_be_published_are_left_to_the_next_run(flaky, folder, out, expected):
    with flaky(_refuse_writes("/data/part-")) as proxy:
        report = make_run(folder, out, "run.max_attempts=2").execute()
    assert len(proxy.faults) == 6
    assert not report.is_complete
    assert not report.session_is_done
    assert sorted(report.failed_shards) == [0, 1, 2]
    assert all(f"cannot write {out}/data/" in why for why in report.failed_shards.values())
    _check_taken_up(folder, out, expected)


def test_marks_that_cannot_be_deleted_end_no_run(flaky, folder, out, expected):
    with flaky(lambda method, path: "denied" if method == "DELETE" else None) as proxy:
        report = make_run(folder, out).execute()
    assert proxy.faults
    assert report.is_complete
    assert contents(out) == expected


def _check_taken_up(folder, out, expected):
    storage = open_storage(out)
    assert summarize(out).n_committed == 0
    assert storage.list("leases") == {}
    assert storage.size("_SUCCESS") is None
    assert make_run(folder, out).execute().is_complete
    assert contents(out) == expected
    assert _problems(out) == []


def test_images_that_cannot_be_fetched_for_a_while_are_good_rows(flaky, inputs, out, expected):
    with flaky(_first(3, "busy", "GET", "/photos/005.png")) as proxy:
        make_run(inputs, out).execute()
    assert proxy.faults
    assert contents(out) == expected


def test_a_commit_that_names_a_file_that_is_gone_is_a_storage_error(folder, out):
    make_run(folder, out, limit=2).execute()
    storage = open_storage(out)
    storage.delete(f"data/{name}" for name in storage.list("data"))
    assert storage.size(commit_file(0))
    with pytest.raises(StorageError, match=f"cannot read {out}/data/part-00000"):
        list(open_run(out).rows())
    (problem,) = _problems(out)
    assert "no such file" in problem


def test_images_with_names_that_urls_must_escape(s3, tmp_path, out):
    storage = open_storage(f"s3://{s3}/odd")
    names = ["a b.png", "c#1.png", "d%41.png", "é.png", "f+g.png"]
    for i, name in enumerate(names):
        save_image(tmp_path / name, i)
        storage.write(name, (tmp_path / name).read_bytes())
    make_run(storage.url(), out).execute()
    assert [row[:2] for row in contents(out)] == [(name, "ok") for name in sorted(names)]
