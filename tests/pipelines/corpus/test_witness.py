"""An image that cannot be read is a row; where none can, nothing is written down."""

import os
import pickle
import socket
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from amg.config import load_config
from amg.errors import (
    BlockedRunError,
    ImageError,
    InterruptedRunError,
    StorageError,
)
from amg.inputs.reading import read_source
from amg.inputs.sources import ImageSource, list_sources
from amg.runs.shards import read_shard
from pipelines.corpus import witness
from pipelines.corpus.messages import ShardTask, WorkerSetup
from pipelines.corpus.witness import InputReader, InputsGoneError, RunInputs, find_witness
from pipelines.corpus.worker import segmenting
from tests.pipelines.helpers import FINGERPRINT, make_folder, write_plan
from tests.pipelines.stub import make_stub


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr("amg.storage.retry.INPUT_WAITS_S", (0.0, 0.0))
    monkeypatch.setattr(witness, "INPUT_WAITS_S", (0.0,))


@pytest.fixture
def store(monkeypatch):
    """What is at an address: bytes, or an error; and what was asked for."""
    contents: dict[str, bytes | Exception] = {}
    asked: list[str] = []

    def read(source: ImageSource, *_: object, **__: object) -> bytes:
        address = source.path.decode()
        asked.append(address)
        found = contents[address]
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(witness, "read_source", read)
    return contents, asked


def _at(address: str) -> ImageSource:
    return ImageSource(address, address, address.encode())


@pytest.mark.parametrize("address", ["s3://b/x.jpg", "https://far/x.jpg", "/here/x.jpg"])
def test_a_fault_is_an_images_own_while_its_neighbours_can_be_read(store, address):
    contents, asked = store
    neighbour = address.replace("x.jpg", "y.jpg")
    contents |= {address: StorageError("no answer"), neighbour: b"picture"}
    reader = InputReader(None)
    with pytest.raises(InputsGoneError, match="no answer"):
        reader.read(_at(address))
    assert asked == [address] * 3
    assert reader.read(_at(neighbour)) == b"picture"
    with pytest.raises(ImageError, match="no answer") as caught:
        reader.read(_at(address))
    assert caught.value.status == "unreachable"


def test_a_store_that_is_gone_is_no_images_fault(store, monkeypatch):
    contents, _ = store
    monkeypatch.setattr(witness, "_FRESH_S", 0.0)
    contents |= {"s3://b/1": b"1", "s3://c/1": b"1", "https://far/1": b"1"}
    reader = InputReader(_at("s3://b/1"))
    for address in ("https://far/1", "s3://c/1"):
        reader.read(_at(address))
    gone = StorageError("gone")
    contents |= {"s3://b/1": gone, "s3://b/2": gone, "https://far/1": gone, "https://far/2": gone}
    with pytest.raises(InputsGoneError):
        reader.read(_at("s3://b/2"))
    # A host of the web is one of many.
    with pytest.raises(ImageError):
        reader.read(_at("https://far/2"))


def test_of_two_stores_the_one_that_is_gone_is_looked_at(store, monkeypatch):
    """The driver can read the other, which says nothing: no shard is to blame, none is given up."""
    contents, asked = store
    monkeypatch.setattr(witness, "_FRESH_S", 0.0)
    contents |= {"s3://b/1": b"GIF89a", "s3://c/1": b"GIF89a"}
    reader, driver = InputReader(_at("s3://b/1")), RunInputs(_at("s3://b/1"), None)
    reader.read(_at("s3://c/1"))
    contents |= {"s3://c/1": StorageError("gone"), "s3://c/2": StorageError("gone")}
    with pytest.raises(InputsGoneError) as caught:
        reader.read(_at("s3://c/2"))
    told = pickle.loads(pickle.dumps(caught.value))
    assert (str(told), told.passing) == ("gone", True)
    assert driver.has_witness()
    assert driver.are_gone(told)
    asked.clear()
    contents["s3://c/1"] = b"GIF89a"
    assert not driver.are_gone(told)
    assert asked == ["s3://c/1"]


def test_a_mount_that_hangs_holds_nobody(tmp_path):
    """The thread that asks it stays, and the process ends all the same."""
    os.mkfifo(tmp_path / "pipe")
    script = """
import sys
from pipelines.corpus import witness
witness._PROBING_S = 0.1
witness.read_source = lambda *_, **__: open(sys.argv[1]).read()
print(witness.find_witness([witness.ImageSource("a", "a", b"/a")]))
"""
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "pipe")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ran.stdout == "None\n"


def test_a_refusal_is_not_asked_again(store):
    contents, asked = store
    contents |= {"s3://b/1": b"1", "s3://b/2": StorageError("forbidden", passing=False)}
    reader = InputReader(_at("s3://b/1"))
    with pytest.raises(ImageError, match="forbidden"):
        reader.read(_at("s3://b/2"))
    assert asked == ["s3://b/2", "s3://b/1"]


def test_a_place_that_gives_nothing_is_asked_less_and_less(store, monkeypatch):
    contents, asked = store
    contents["s3://b/1"] = b"1"
    reader = InputReader(_at("s3://b/1"))

    def fail(n):
        contents[f"https://dead/{n}"] = StorageError("dead")
        with pytest.raises(ImageError) as caught:
            reader.read(_at(f"https://dead/{n}"))
        assert caught.value.status == "unreachable"
        return asked.count(f"https://dead/{n}")

    monkeypatch.setattr(witness, "_REST_AFTER", 8)
    clock = SimpleNamespace(monotonic=lambda: now_s)
    now_s = 1000.0
    monkeypatch.setattr(witness, "time", clock)
    assert [fail(n) for n in range(8)] == [3, 3, 1, 1, 1, 1, 1, 1]
    now_s += 59
    assert fail(8) == 0
    now_s += 2
    assert fail(9) == 1, "those that were not asked for do not make the rest longer"
    assert fail(10) == 0
    now_s += 61
    contents["https://dead/11"] = b"alive"
    reader.read(_at("https://dead/11"))
    assert fail(12) == 3


def test_a_place_that_gave_images_is_asked_in_earnest(store, monkeypatch):
    """A store that was down, or a folder of it that is forbidden, condemns nobody unasked."""
    contents, asked = store
    monkeypatch.setattr(witness, "_REST_AFTER", 2)
    contents["s3://b/0"] = b"0"
    reader = InputReader(None)
    reader.read(_at("s3://b/0"))
    for n in range(1, 6):
        contents[f"s3://b/{n}"] = StorageError("down")
        with pytest.raises(ImageError):
            reader.read(_at(f"s3://b/{n}"))
        assert asked.count(f"s3://b/{n}") == 3


def test_a_witness_is_found_among_bad_images(tmp_path):
    folder = make_folder(tmp_path, n_images=3)
    (folder / "000.png").write_bytes(b"no picture")
    sources = list(list_sources([folder]))
    (folder / "001.png").unlink()
    assert find_witness(sources) == sources[2]
    assert find_witness(sources[:2]) is None
    assert find_witness([]) is None


# Workers


def _worker(tmp_path, *overrides, witness=None, plan=True):
    if plan:
        write_plan(tmp_path / "out", n_images=9)
    config = load_config(None, list(overrides))
    out = str(tmp_path / "out")
    setup = WorkerSetup(out, config, segmenting(make_stub), FINGERPRINT, None, witness=witness)
    return setup.make_worker(setup, lambda _: None)


def _rows(tmp_path, worker, sources):
    result = worker.run(ShardTask(0, "abcdef01", tuple(sources)))
    return list(read_shard(tmp_path / "out" / result.file))


def test_a_worker_without_the_mounts_does_not_start(tmp_path):
    with pytest.raises(BlockedRunError, match=r"out holds no run on .*: is it mounted there\?"):
        _worker(tmp_path, plan=False)
    gone = ImageSource("a.png", "/gone/a.png", b"/gone/a.png")
    with pytest.raises(BlockedRunError, match=r"/gone/a\.png can be read by the driver and not on"):
        _worker(tmp_path, witness=gone)


def test_a_mount_that_is_lost_stops_the_run(tmp_path):
    folder = make_folder(tmp_path / "in", n_images=9)
    sources = list(list_sources([folder]))
    worker = _worker(tmp_path, "run.max_unread_in_a_row=5", witness=sources[8])
    for n in range(6):
        (folder / f"{n:03d}.png").unlink()
    statuses = [row.status for row in _rows(tmp_path, worker, sources)]
    assert statuses == ["missing"] * 6 + ["ok"] * 3  # the witness is there: it is only they
    for n in range(6):
        (folder / f"{n:03d}.png").write_bytes(b"no picture")
    statuses = [row.status for row in _rows(tmp_path, worker, sources[:6])]
    assert statuses == ["decode_error"] * 6  # but it is all there
    folder.rename(tmp_path / "unmounted")
    with pytest.raises(InterruptedRunError, match=r"images in a row cannot be read on .*missing"):
        _rows(tmp_path, worker, sources)


# A list of web addresses


class _Hostile(BaseHTTPRequestHandler):
    picture = b""

    def do_GET(self):
        what = self.path.strip("/")
        if what.isdigit():
            self.send_error(int(what))
            return
        self.send_response(200)
        if what != "endless":
            self.send_header("Content-Length", str(len(self.picture) * (2 if what == "cut" else 1)))
        self.end_headers()
        self.wfile.write(self.picture)
        while what == "endless":
            self.wfile.write(bytes(2**16))

    def finish(self):
        with suppress(OSError):  # the other side has had enough
            super().finish()

    def log_message(self, *_):
        pass


@pytest.fixture
def hostile():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hostile)
    server.handle_error = lambda *_: None
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def _dead_port():
    with socket.socket() as unused:
        # Nobody gets this port while it is held, and nobody listens.
        unused.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


def test_every_address_of_a_hostile_list_is_a_row(tmp_path, hostile, monkeypatch):
    pytest.importorskip("aiohttp")
    folder = make_folder(tmp_path / "in", n_images=4)
    monkeypatch.setattr(_Hostile, "picture", (folder / "000.png").read_bytes())
    monkeypatch.setattr(witness, "read_source", partial(read_source, max_bytes=2**20))
    bad = [f"http://127.0.0.1:{_dead_port()}/x"]
    bad += [f"{hostile}/{what}" for what in ("403", "404", "500", "cut", "endless")]
    lines = [*bad[:3], "000.png", f"{hostile}/good", *bad[3:], "001.png", "002.png"]
    (folder / "list.txt").write_text("\n".join(lines))
    sources = list(list_sources([folder / "list.txt"]))
    rows = _rows(tmp_path, _worker(tmp_path, witness=sources[3]), sources)
    assert [row.status for row in rows] == [
        *("unreachable", "unreachable", "missing", "ok", "ok"),
        *("unreachable", "unreachable", "too_large", "ok", "ok"),
    ]
    assert Path(rows[0].uri).name == "x"
    assert all(row.error for row in rows if row.status != "ok")
