"""The same operations on a local folder and on object stores."""

import errno
import io
import os
import threading
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFile

from amg.errors import ConfigError, StorageError
from amg.storage.failpoints import ENVIRONMENT
from amg.storage.stores import LocalStorage, open_storage, read_all

STEPS = ("begun", "half_written", "synced", "renamed")


@pytest.fixture
def local(tmp_path):
    return LocalStorage(tmp_path / "out")


def _fail_at(monkeypatch, point, action="raise"):
    monkeypatch.setenv(ENVIRONMENT, f"{point}={action}")


def _files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_what_is_written_is_read_and_listed(storage):
    for name, data in {"plan.json": b"{}", "commits/a.json": b"one", "commits/b.json": b""}.items():
        storage.write(name, data)
        assert storage.read(name) == data
        assert storage.size(name) == len(data)
    assert storage.list("commits") == {"a.json": 3, "b.json": 0}
    assert storage.list("") == {"plan.json": 2}


def test_what_is_not_there_is_none_and_cannot_be_opened(storage):
    assert storage.read("plan.json") is None
    assert storage.size("plan.json") is None
    assert storage.list("commits") == {}
    assert storage.list("") == {}
    with pytest.raises(StorageError, match=r"cannot read .*out/plan\.json: [Nn]o such file"):
        storage.open("plan.json")


def test_what_is_written_again_is_replaced_and_seen_at_once(storage):
    other = open_storage(storage.address)
    storage.write("a.json", b"first")
    assert other.read("a.json") == b"first"
    assert other.list("") == {"a.json": 5}
    storage.write("a.json", b"second")
    storage.write("b.json", b"new")
    assert other.read("a.json") == b"second"
    assert other.list("") == {"a.json": 6, "b.json": 3}
    assert other.size("a.json") == 6


def test_what_other_machines_write_is_seen_at_once(s3):
    import boto3

    storage = open_storage(f"s3://{s3}/out")
    storage.write("commits/0.json", b"mine")
    assert storage.list("commits") == {"0.json": 4}
    assert storage.size("commits/0.json") == 4
    for i in range(2):
        boto3.client("s3").put_object(Bucket=s3, Key=f"out/commits/{i}.json", Body=b"theirs")
    assert storage.list("commits") == {"0.json": 6, "1.json": 6}
    assert storage.size("commits/0.json") == 6
    assert storage.read("commits/0.json") == b"theirs"


def test_files_are_created_only_once(storage):
    assert storage.create("leases/a.json", b"mine")
    assert not storage.create("leases/a.json", b"other")
    assert storage.read("leases/a.json") == b"mine"
    assert storage.list("leases") == {"a.json": 4}
    storage.delete(["leases/a.json"])
    assert storage.create("leases/a.json", b"other")


def test_deleting_is_done_once_and_may_be_asked_twice(storage):
    for name in ("data/a", "data/b", "data/c"):
        storage.write(name, b"x")
    storage.delete(f"data/{name}" for name in ("a", "c", "nothing"))
    storage.delete(["data/a", "nowhere/at/all"])
    assert storage.list("data") == {"b": 1}


def test_a_staged_file_appears_when_it_is_published(storage):
    with storage.staged("data/part.parquet") as staged:
        staged.write_bytes(b"rows")
        assert "part.parquet" not in storage.list("data")
        storage.publish(staged, "data/part.parquet")
    assert storage.read("data/part.parquet") == b"rows"
    assert storage.list("data") == {"part.parquet": 4}
    assert not staged.exists()


def test_a_staged_file_that_is_not_published_leaves_nothing(storage):
    with pytest.raises(KeyError), storage.staged("data/part.parquet") as staged:
        staged.write_bytes(b"rows")
        raise KeyError("stop")
    assert not staged.exists()
    assert storage.list("data") == {}


def test_files_are_opened_with_seek_and_read_by_arrow(storage):
    table = pa.table({"a": list(range(1000))})
    with storage.staged("data/t.parquet") as staged:
        pq.write_table(table, staged, row_group_size=100)
        storage.publish(staged, "data/t.parquet")
    with storage.open("data/t.parquet") as file:
        file.seek(-4, io.SEEK_END)
        assert file.read() == b"PAR1"
        file.seek(0)
        assert pq.ParquetFile(file).read_row_group(3).column("a")[0].as_py() == 300
    filesystem, root = storage.arrow()
    assert pq.read_table(f"{root}/data/t.parquet", filesystem=filesystem).equals(table)


def test_many_files_are_read_in_order(storage):
    for i in range(40):
        storage.write(f"commits/{i:05d}", b"%d" % i)
    names = [f"commits/{i:05d}" for i in range(39, -1, -1)]
    assert list(read_all(storage, [*names, "commits/none"])) == [
        *(b"%d" % i for i in range(39, -1, -1)),
        None,
    ]


def test_lines_are_appended_where_that_can_be_done(storage):
    storage.write("events.jsonl", b"")
    if not storage.append("events.jsonl", "ä"):
        assert storage.read("events.jsonl") == b""
        assert not isinstance(storage, LocalStorage)
        return
    storage.append("events.jsonl", "b")
    assert storage.read("events.jsonl") == "ä\nb\n".encode()


@pytest.mark.parametrize("point", ["commits.begun", "commits.renamed"])
def test_an_error_while_writing_is_a_storage_error(storage, monkeypatch, point):
    storage.write("commits/0.json", b"old")
    _fail_at(monkeypatch, point)
    with pytest.raises(StorageError, match=r"cannot write .*out/commits/0\.json"):
        storage.write("commits/0.json", b"new")
    assert storage.read("commits/0.json") == (b"old" if point == "commits.begun" else b"new")
    assert list(storage.list("commits")) == ["0.json"]


@pytest.mark.parametrize("action", ["raise", "full"])
@pytest.mark.parametrize("step", STEPS)
def test_a_local_write_is_whole_or_not_at_all(local, monkeypatch, step, action):
    local.write("commits/0.json", b"the old one")
    _fail_at(monkeypatch, f"commits.{step}", action)
    with pytest.raises(StorageError, match=r"commits/0\.json: .*(Input|No space)"):
        local.write("commits/0.json", b"the new")
    expected = b"the new" if step == "renamed" else b"the old one"
    assert local.read("commits/0.json") == expected
    assert _files(local.root) == ["commits/0.json"]


def test_readers_see_old_or_new_and_nothing_between(local):
    values = [bytes([65 + i]) * 100_000 for i in range(4)]
    local.write("a", values[0])
    seen, done = set(), threading.Event()

    def read():
        while not done.is_set():
            seen.add(local.read("a"))

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(60):
        local.write("a", values[i % 4])
    done.set()
    reader.join()
    assert seen <= set(values)


def test_files_that_vanish_while_a_folder_is_listed_are_left_out(local):
    """Another process renames its temporary files while we look."""
    for i in range(50):
        local.write(f"commits/{i:05d}.json", b"x")
    done = threading.Event()

    def churn():
        path = local.root / "commits" / ".00050.json.partial"
        while not done.is_set():
            path.write_bytes(b"x")
            path.unlink()

    writer = threading.Thread(target=churn)
    writer.start()
    try:
        for _ in range(300):
            assert len({n for n in local.list("commits") if n[0] != "."}) == 50
    finally:
        done.set()
        writer.join()


def test_a_file_where_a_folder_should_be_is_named(tmp_path):
    (tmp_path / "out").write_text("a file")
    storage = open_storage(tmp_path / "out")
    with pytest.raises(StorageError, match=f"cannot create {tmp_path}/out/commits/a"):
        storage.write("commits/a", b"x")
    for attempt in (
        lambda: storage.read("a"),
        lambda: storage.list("commits"),
        lambda: storage.size("a"),
        lambda: storage.delete(["a"]),
        lambda: storage.open("a"),
        lambda: storage.append("a", "x"),
    ):
        with pytest.raises(StorageError, match=f"{tmp_path}/out.*: Not a directory"):
            attempt()


def test_a_read_only_folder_is_named(local, monkeypatch):
    local.write("a", b"old")

    def refuse(path, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(StorageError, match=f"cannot write {local.root}/a: Permission denied"):
        local.write("a", b"new")
    monkeypatch.undo()
    assert local.read("a") == b"old"
    assert _files(local.root) == ["a"]


def test_a_folder_that_cannot_be_synced_is_a_storage_error(local, monkeypatch):
    def fail(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("amg.storage.stores.os.fsync", fail)
    with pytest.raises(StorageError, match="Input/output error"):
        local.write("a", b"new")
    assert _files(local.root) == []


def test_no_room_to_stage_an_upload_is_a_storage_error(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    storage = open_storage("memory://full/out")
    with (
        pytest.raises(StorageError, match="for memory://full/out/data/a"),
        storage.staged("data/a"),
    ):
        pass


def test_an_upload_that_arrives_short_is_an_error(monkeypatch):
    storage = open_storage(f"memory://{uuid.uuid4().hex}")

    def put_short(local, remote):
        storage._fs.pipe_file(remote, Path(local).read_bytes()[:-1])

    monkeypatch.setattr(storage._fs, "put_file", put_short)
    with pytest.raises(StorageError, match="4 bytes sent, 3 arrived"), storage.staged("a") as path:
        path.write_bytes(b"rows")
        storage.publish(path, "a")


OPERATIONS = {
    "read": ("cat_file", lambda s: s.read("a")),
    "write": ("pipe_file", lambda s: s.write("a", b"x")),
    "create": ("pipe_file", lambda s: s.create("a", b"x")),
    "list": ("ls", lambda s: s.list("a")),
    "delete": ("rm_file", lambda s: s.delete(["a"])),
    "size": ("info", lambda s: s.size("a")),
    "open": ("open", lambda s: s.open("a")),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (TimeoutError(), True),
        (RuntimeError("503\nmore"), True),
        (OSError(5, "EIO"), True),
        (PermissionError("no"), False),
        (NotImplementedError("read only"), False),
    ],
)
def test_whatever_an_object_store_raises_is_a_storage_error(monkeypatch, operation, error, passing):
    storage = open_storage(f"memory://{uuid.uuid4().hex}/out")
    method, call = OPERATIONS[operation]

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(storage._fs, method, fail)
    with pytest.raises(StorageError, match=r"cannot \w+ memory://\w+/out/a: \S+") as caught:
        call(storage)
    assert "\n" not in str(caught.value)
    assert caught.value.passing == passing


def test_a_store_that_fails_in_the_middle_of_a_file_is_a_storage_error(monkeypatch):
    storage = open_storage(f"memory://{uuid.uuid4().hex}/out")
    storage.write("a", b"12345")
    with storage.open("a") as file:
        assert file.read(2) == b"12"
        assert file.seek(3) == 3
        assert file.read() == b"45"

    def fail(*_):
        raise RuntimeError("connection lost")

    monkeypatch.setattr(MemoryFile, "read", fail)
    with storage.open("a") as file, pytest.raises(StorageError, match=r"out/a: connection lost"):
        file.read()


@pytest.mark.parametrize("text", ["s3://key:hunter2@some-bucket/out", "s3://b/out?sig=hunter2"])
def test_no_error_of_a_storage_quotes_secrets(s3, text):
    storage = open_storage(text)
    assert "hunter2" not in storage.url("plan.json")
    for operation in (
        lambda: storage.write("plan.json", b"x"),
        lambda: storage.list("commits"),
        lambda: storage.read("plan.json"),
        lambda: storage.delete(["plan.json"]),
    ):
        try:
            operation()
        except StorageError as error:
            assert "hunter2" not in str(error)
            assert "hunter2" not in repr(error)


def test_a_bucket_that_is_not_there_is_named(s3):
    storage = open_storage(f"s3://{s3}-not/out")
    assert storage.read("plan.json") is None
    with pytest.raises(StorageError, match=f"cannot write s3://{s3}-not/out/plan.json"):
        storage.write("plan.json", b"x")


def test_a_server_that_does_not_answer_is_a_storage_error(s3, monkeypatch):
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(StorageError, match=f"cannot read s3://{s3}/out/plan.json"):
        open_storage(f"s3://{s3}/out").read("plan.json")


@pytest.mark.parametrize(
    ("text", "root"),
    [("file:///tmp/a%20b", "/tmp/a b"), ("/tmp/x", "/tmp/x"), ("~/x", str(Path.home() / "x"))],
)
def test_local_folders_may_be_given_in_many_ways(text, root):
    assert open_storage(text).address == root
    assert open_storage(Path(text) if "://" not in text else text).address == root


def test_schemes_that_nobody_knows_are_refused():
    with pytest.raises(ConfigError, match="nosuch"):
        open_storage("nosuch://bucket/out")
