import errno
import http.server
import os
import threading

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from amg import ImageError
from amg.errors import StorageError
from amg.inputs.faults import remote_fault
from amg.inputs.reading import read_source
from amg.inputs.sources import ImageSource, list_sources


def source_of(location, **fields):
    return ImageSource("id", "uri", os.fsencode(location), **fields)


def status_of(source, **options):
    with pytest.raises(ImageError) as caught:
        read_source(source, **options)
    return caught.value.status


def test_local_files(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"12345")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    assert read_source(source_of(tmp_path / "a.jpg"), max_bytes=5) == b"12345"
    assert status_of(source_of(tmp_path / "a.jpg"), max_bytes=4) == "too_large"
    assert status_of(source_of(tmp_path / "none.jpg")) == "missing"
    assert status_of(source_of(tmp_path)) == "decode_error"
    assert status_of(source_of(tmp_path / "pipe.jpg")) == "decode_error"
    assert status_of(source_of(tmp_path / "pipe.jpg", offset=0, size=1)) == "decode_error"
    assert status_of(source_of(tmp_path / "loop.jpg")) == "decode_error"


@pytest.mark.parametrize("offset", [None, 0])
@pytest.mark.parametrize(
    ("number", "passes"),
    [(errno.EIO, True), (errno.ESTALE, True), (errno.EMFILE, True), (errno.EACCES, False)],
)
def test_local_errors(tmp_path, monkeypatch, offset, number, passes):
    (tmp_path / "a.jpg").write_bytes(b"12345")

    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("pathlib.Path.open", fail)
    monkeypatch.setattr("pathlib.Path.read_bytes", fail)
    with pytest.raises(StorageError if passes else ImageError, match=os.strerror(number)):
        read_source(source_of(tmp_path / "a.jpg", offset=offset, size=5))


# A storage that fails as it is told


class FlakyFileSystem(MemoryFileSystem):
    protocol = "flaky"
    store: dict = {}  # noqa: RUF012 - as its base
    pseudo_dirs = [""]  # noqa: RUF012
    error: Exception | None = None
    calls: list = []  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + path.removeprefix("flaky://").strip("/") if path.strip("/") else ""

    def cat_file(self, path, start=None, end=None, **kwargs):
        self.calls.append("cat_file")
        if self.error:
            raise self.error
        return super().cat_file(path, start=start, end=end, **kwargs)

    def ls(self, path, detail=True, **kwargs):
        if self.error:
            raise self.error
        return super().ls(path, detail=detail, **kwargs)


@pytest.fixture
def flaky(monkeypatch):
    fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
    monkeypatch.setattr(FlakyFileSystem, "store", {})
    monkeypatch.setattr(FlakyFileSystem, "calls", [])
    monkeypatch.setattr(FlakyFileSystem, "error", None)
    files = fsspec.filesystem("flaky", skip_instance_cache=True)
    files.pipe_file("/d/a.jpg", b"12345")
    files.pipe_file("/d/empty.jpg", b"")
    return FlakyFileSystem


def test_a_remote_file_takes_one_request(flaky):
    assert read_source(source_of("flaky://d/a.jpg")) == b"12345"
    assert flaky.calls == ["cat_file"]
    assert read_source(source_of("flaky://d/empty.jpg")) == b""
    assert read_source(source_of("flaky://d/a.jpg"), max_bytes=5) == b"12345"
    assert status_of(source_of("flaky://d/a.jpg"), max_bytes=4) == "too_large"
    assert status_of(source_of("flaky://d/none.jpg")) == "missing"
    calls = len(flaky.calls)
    assert status_of(source_of("flaky://d/a.jpg", size=5), max_bytes=4) == "too_large"
    assert len(flaky.calls) == calls  # the plan knew its size


def test_ranges(flaky):
    assert read_source(source_of("flaky://d/a.jpg", offset=1, size=3)) == b"234"
    assert read_source(source_of("flaky://d/a.jpg", offset=5, size=0)) == b""
    with pytest.raises(StorageError, match="2 of 4 bytes at 3"):
        read_source(source_of("flaky://d/a.jpg", offset=3, size=4))


class HttpError(Exception):
    def __init__(self, status):
        super().__init__(f"{status} at https://user:pass@host/?sig=secret")
        self.status = status


class BotoError(Exception):
    def __init__(self, status):
        super().__init__("said by the store")
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}, "Error": {}}


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        HttpError(503),
        BotoError(500),
        BotoError(403),
        caused(PermissionError("Forbidden"), BotoError(403)),
        OSError(errno.EBUSY, "SlowDown"),
        TimeoutError(),
        ConnectionResetError(104, "reset"),
        RuntimeError("Unable to locate credentials"),
        OSError("of no number"),
    ],
)
def test_passing_faults_of_a_storage(flaky, monkeypatch, error):
    monkeypatch.setattr(flaky, "error", error)
    for fields in ({}, {"offset": 1, "size": 2}):
        with pytest.raises(StorageError, match=r"^flaky://d/a\.jpg: ") as caught:
            read_source(source_of("flaky://user:pass@d/a.jpg?x=1", **fields))
        assert caught.value.__cause__ is None
    monkeypatch.setattr("amg.storage.retry.INPUT_WAITS_S", ())
    with pytest.raises(StorageError, match="flaky://d"):
        list(list_sources(["flaky://d"]))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (FileNotFoundError("x"), "missing"),
        (BotoError(404), "missing"),
        (IsADirectoryError("x"), "decode_error"),
        (type("ParamValidationError", (Exception,), {})("bad bucket"), "missing"),
    ],
)
def test_the_images_own_faults(flaky, monkeypatch, error, status):
    monkeypatch.setattr(flaky, "error", error)
    assert status_of(source_of("flaky://d/a.jpg")) == status


def test_an_empty_file_has_no_range(flaky, monkeypatch):
    monkeypatch.setattr(flaky, "error", caused(OSError(22, "InvalidRange"), BotoError(416)))
    assert read_source(source_of("flaky://d/a.jpg")) == b""


def test_an_unknown_scheme_is_a_missing_image():
    assert status_of(source_of("nosuch://d/a.jpg")) == "missing"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, ImageError),
        (403, ImageError),
        (410, ImageError),
        (408, StorageError),
        (429, StorageError),
        (503, StorageError),
    ],
)
def test_web_errors_show_no_secrets(status, kind):
    fault = remote_fault(HttpError(status), "https://user:pass@host/a.jpg?sig=secret")
    assert type(fault) is kind
    assert not {"secret", "pass"} & set(str(fault).replace("=", " ").replace(":", " ").split())


# A web server


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def web(tmp_path):
    from functools import partial

    handler = partial(_Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_files_and_lists_on_a_web_server(tmp_path, web, monkeypatch):
    pytest.importorskip("aiohttp")
    (tmp_path / "a.jpg").write_bytes(b"12345")
    (tmp_path / "list.txt").write_text("a.jpg\nnone.jpg\n")
    (source,) = list_sources([f"{web}/a.jpg?token=1"])
    assert (source.image_id, source.uri) == ("a.jpg", f"{web}/a.jpg")
    assert read_source(source) == b"12345"
    first, second = list_sources([f"{web}/list.txt"])
    assert read_source(first) == b"12345"
    assert status_of(second) == "missing"
    monkeypatch.setattr("amg.inputs.reading.MAX_WEB_BYTES", 4)  # its server may send for ever
    assert status_of(first) == "too_large"
    # This server knows no ranges: a member would be cut out of the wrong bytes.
    assert status_of(source_of(f"{web}/a.jpg", offset=1, size=2)) == "decode_error"
