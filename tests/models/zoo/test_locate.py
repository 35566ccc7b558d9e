import hashlib
import logging
import multiprocessing
import os
import random
import threading
import time
from pathlib import Path

import pytest

from amg.errors import CheckpointError
from amg.models.zoo import download, locate
from amg.models.zoo.download import PublishedFile
from amg.models.zoo.locate import LocatedWeights, find_checkpoint
from tests.models import oracles


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """The checkpoint folder of an empty cache; no network but loopback, no waiting."""
    root = tmp_path_factory.mktemp("cache")
    for name in ("AMG_OFFLINE", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AMG_CACHE", str(root))
    monkeypatch.setattr(locate, "try_to_load_from_cache", lambda *args: None)
    monkeypatch.setattr(locate, "answers", lambda url: True)
    monkeypatch.setattr(locate, "hf_hub_download", no_hub)
    monkeypatch.setattr(download, "_RETRY_WAIT_S", 0.0)
    monkeypatch.setattr(download, "_CHUNK_BYTES", 2**12)
    return root / "checkpoints"


def no_hub(*args):
    raise LookupError("no hub\nin this test")


CONTENT = random.Random(0).randbytes(200_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PUBLISHED = PublishedFile("weights.bin", "https://127.0.0.1:9/weights.bin", SHA256)


@pytest.fixture
def server():
    with oracles.serving(CONTENT) as files:
        yield files


@pytest.fixture
def published(server):
    return PublishedFile("weights.bin", server.url, SHA256)


def put(path, content=CONTENT):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_the_callers_file_comes_first(cache, tmp_path):
    put(cache / "weights.bin")
    own = put(tmp_path / "own.pth", b"mine")
    expected = LocatedWeights(own, hashlib.sha256(b"mine").hexdigest())
    assert find_checkpoint("m", PUBLISHED, own) == expected
    assert find_checkpoint("m", PUBLISHED, str(own)) == expected
    assert find_checkpoint("m", put(tmp_path / "built_in"), own) == expected
    assert not (tmp_path / "own.pth.sha256").exists()


@pytest.mark.parametrize("make", [None, Path.mkdir], ids=["absent", "folder"])
def test_a_named_file_must_exist(tmp_path, make):
    path = tmp_path / "own.pth"
    if make:
        make(path)
    with pytest.raises(CheckpointError, match=f"{path} (does not exist|has no model.safetensors)"):
        find_checkpoint("m", PUBLISHED, path)
    with pytest.raises(CheckpointError, match=f"{path} (does not exist|is no file)"):
        find_checkpoint("m", path, None)


def test_a_built_in_file_is_hashed(tmp_path):
    path = put(tmp_path / "built_in.safetensors")
    assert find_checkpoint("m", path, None) == LocatedWeights(path, SHA256)


def test_the_cache_holds_the_published_file_or_safetensors(cache):
    own = put(cache / "m.safetensors", b"converted")
    converted = hashlib.sha256(b"converted").hexdigest()
    assert find_checkpoint("m", PUBLISHED, None) == LocatedWeights(own, converted)
    path = put(cache / "weights.bin")
    assert find_checkpoint("m", PUBLISHED, None) == LocatedWeights(path, SHA256)


def test_cached_files_are_hashed_once_while_they_are_the_same(cache, monkeypatch):
    path = put(cache / "weights.bin")
    hashed = []

    def counting(path):
        hashed.append(path)
        return download.sha256_of(path)

    monkeypatch.setattr(locate, "sha256_of", counting)
    for _ in range(3):
        assert find_checkpoint("m", PUBLISHED, None).sha256 == SHA256
    assert hashed == [path]
    os.utime(path, ns=(1, 1))
    find_checkpoint("m", PUBLISHED, None)
    assert len(hashed) == 2
    (cache / "weights.bin.sha256").write_bytes(b"\xff damaged")
    find_checkpoint("m", PUBLISHED, None)
    assert len(hashed) == 3


def test_a_damaged_cached_file_is_told_with_both_sums(cache):
    path = put(cache / "weights.bin")
    find_checkpoint("m", PUBLISHED, None)
    put(path, CONTENT[:-1] + b"?")
    os.utime(path, ns=(1, 1))
    damaged = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(CheckpointError, match=f"{path}.*{damaged}.*{SHA256}.*delete it"):
        find_checkpoint("m", PUBLISHED, None)
    assert path.exists()


def test_a_cache_that_cannot_remember_is_hashed_each_time(cache):
    path = put(cache / "weights.bin")
    (cache / "weights.bin.sha256").mkdir()
    for _ in range(2):
        assert find_checkpoint("m", PUBLISHED, None) == LocatedWeights(path, SHA256)


def test_where_the_cache_is(tmp_path, monkeypatch):
    def searched():
        with pytest.raises(CheckpointError) as caught:
            find_checkpoint("m", PUBLISHED, None)
        return str(caught.value)

    monkeypatch.setenv("AMG_OFFLINE", "1")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("AMG_CACHE", "~/mine")
    assert f"put it at {tmp_path}/home/mine/checkpoints/weights.bin" in searched()
    monkeypatch.setenv("AMG_CACHE", "")
    assert f"put it at {tmp_path}/xdg/amg/checkpoints/weights.bin" in searched()
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert f"put it at {tmp_path}/home/.cache/amg/checkpoints/weights.bin" in searched()


# --- downloading ---------------------------------------------------------------------------------


def test_a_published_file_is_downloaded_verified_and_kept(cache, server, published):
    expected = LocatedWeights(cache / "weights.bin", SHA256)
    assert find_checkpoint("m", published, None) == expected
    assert expected.path.read_bytes() == CONTENT
    assert find_checkpoint("m", published, None) == expected
    assert server.requests == [""]
    assert not (cache / "weights.bin.part").exists()


def test_a_cut_connection_is_resumed_where_it_was(server, published):
    server.cut_at = [80_000, 150_000]
    path = find_checkpoint("m", published, None).path
    assert path.read_bytes() == CONTENT
    # How much of what was sent has arrived is the system's affair.
    assert server.requests[0] == ""
    assert len(server.requests) == 3
    starts = [int(asked.removeprefix("bytes=").removesuffix("-")) for asked in server.requests[1:]]
    assert 0 < starts[0] <= 80_000 < starts[1] <= 150_000


def test_a_partial_file_of_an_earlier_process_is_resumed(cache, server, published):
    put(cache / "weights.bin.part", CONTENT[:70_000])
    assert find_checkpoint("m", published, None).path.read_bytes() == CONTENT
    assert server.requests == ["bytes=70000-"]


def test_a_complete_partial_file_is_taken(cache, server, published):
    put(cache / "weights.bin.part")
    assert find_checkpoint("m", published, None).path.read_bytes() == CONTENT
    assert server.requests == [f"bytes={len(CONTENT)}-"]


def test_a_partial_file_that_is_too_long_is_started_anew(cache, server, published):
    put(cache / "weights.bin.part", CONTENT + b"more")
    assert find_checkpoint("m", published, None).path.read_bytes() == CONTENT
    assert server.requests == [f"bytes={len(CONTENT) + 4}-", ""]


@pytest.mark.parametrize(("ranges", "n_requests"), [(False, 1), ("wrong", 2)])
def test_a_server_that_does_not_honour_ranges_sends_all(
    cache, server, published, ranges, n_requests
):
    server.ranges = ranges
    put(cache / "weights.bin.part", CONTENT[:70_000])
    assert find_checkpoint("m", published, None).path.read_bytes() == CONTENT
    assert len(server.requests) == n_requests


def test_a_server_that_always_cuts_is_given_up(cache, server, published):
    server.ranges, server.cut_at = False, [100_000] * 20
    with pytest.raises(CheckpointError, match="the connection was cut after 100000 of 200000"):
        find_checkpoint("m", published, None)
    assert len(server.requests) == 1 + download._ATTEMPTS
    assert not (cache / "weights.bin").exists()


@pytest.mark.parametrize("how", ["whole", "resumed"])
def test_a_wrong_sum_deletes_what_came(cache, server, published, how):
    if how == "whole":
        server.content = CONTENT[:-1] + b"?"
        actual = hashlib.sha256(server.content).hexdigest()
    else:
        put(cache / "weights.bin.part", bytes(1000))
        actual = hashlib.sha256(bytes(1000) + CONTENT[1000:]).hexdigest()
    with pytest.raises(CheckpointError, match=f"sha256 {actual}, but should have {SHA256}"):
        find_checkpoint("m", published, None)
    assert not (cache / "weights.bin").exists()
    assert not (cache / "weights.bin.part").exists()


@pytest.mark.parametrize(("status", "n_requests"), [(404, 1), (403, 1), (503, 3), (429, 3)])
def test_a_refusing_server_is_named_with_its_answer(server, published, status, n_requests):
    server.statuses = [status] * 9
    with pytest.raises(CheckpointError, match=f"the server answered {status}.*Fetch {server.url}"):
        find_checkpoint("m", published, None)
    assert len(server.requests) == n_requests


def test_a_passing_refusal_is_waited_out(server, published):
    server.statuses = [503, 500]
    assert find_checkpoint("m", published, None).sha256 == SHA256


@pytest.fixture
def closed_url():
    with oracles.serving(b"") as closed:
        pass
    return closed.url


def test_no_connection_tells_what_to_do(cache, closed_url):
    published = PublishedFile("weights.bin", closed_url, SHA256, "owner/repo")
    with pytest.raises(CheckpointError, match=r"no answer.*refused") as caught:
        find_checkpoint("m", published, None)
    message = str(caught.value)
    assert f"Fetch {closed_url} (sha256 {SHA256})" in message
    assert f"put it at {cache}/weights.bin, or model.safetensors of" in message
    assert f"https://huggingface.co/owner/repo at {cache}/m.safetensors" in message
    assert "--checkpoint PATH" in message
    assert "owner/repo on the hub: no hub" in message
    assert "\n" not in message


@pytest.mark.parametrize("variable", ["AMG_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_asks_nobody(cache, server, variable, monkeypatch):
    monkeypatch.setenv(variable, "1")
    published = PublishedFile("weights.bin", server.url, SHA256, "owner/repo")
    with pytest.raises(CheckpointError, match=variable) as caught:
        find_checkpoint("m", published, None)
    message = str(caught.value)
    assert all(part in message for part in (server.url, SHA256, f"{cache}/weights.bin"))
    assert "no hub" not in message
    assert server.requests == []
    put(cache / "weights.bin")
    assert find_checkpoint("m", published, None).sha256 == SHA256


@pytest.mark.parametrize("url", ["http://example.com/w", "file:///etc/hosts", "ftp://127.0.0.1/w"])
def test_only_https_is_downloaded_from(url):
    published = PublishedFile("weights.bin", url, SHA256)
    with pytest.raises(CheckpointError, match="only https"):
        find_checkpoint("m", published, None)


def test_redirects_may_not_leave_https(server, published):
    server.statuses, server.location = [302], "http://example.com/weights.bin"
    with pytest.raises(CheckpointError, match=r"http://example\.com.*only https"):
        find_checkpoint("m", published, None)


def test_redirects_are_followed_with_their_range(cache, server, published):
    server.statuses, server.location = [302], server.url + "?again"
    put(cache / "weights.bin.part", CONTENT[:70_000])
    assert find_checkpoint("m", published, None).sha256 == SHA256
    assert server.requests == ["bytes=70000-"] * 2


def test_a_cache_folder_that_cannot_be_made_is_named(tmp_path, published, monkeypatch):
    put(tmp_path / "file", b"")
    monkeypatch.setenv("AMG_CACHE", str(tmp_path / "file"))
    with pytest.raises(CheckpointError, match=r"file/checkpoints cannot be written.*Fetch http"):
        find_checkpoint("m", published, None)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_not_taken_for_the_network(cache, server, published):
    cache.mkdir()
    (cache / "weights.bin.part").symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match=f"{cache} cannot be written .No space left"):
        find_checkpoint("m", published, None)
    assert server.requests == [""]


def test_a_long_download_reports_itself(server, published, monkeypatch, caplog):
    monkeypatch.setattr(download, "_PROGRESS_EVERY_S", 0.0)
    with caplog.at_level(logging.INFO, "amg.models.zoo.download"):
        find_checkpoint("m", published, None)
    assert any("weights.bin: 0 of 0 MB" in message for message in caplog.messages)


def test_the_hub_is_the_second_source(tmp_path, server, monkeypatch):
    path = put(tmp_path / "model.safetensors", b"hub")
    asked = []
    monkeypatch.setattr(locate, "hf_hub_download", lambda *args: asked.append(args) or str(path))
    expected = LocatedWeights(path, hashlib.sha256(b"hub").hexdigest())
    published = PublishedFile("weights.bin", server.url, SHA256, "owner/repo")
    assert find_checkpoint("m", published, None).sha256 == SHA256
    assert asked == []
    (locate._cache_folder() / "weights.bin").unlink()
    server.statuses = [404]
    assert find_checkpoint("m", published, None) == expected
    assert asked == [("owner/repo", "model.safetensors")]


def test_a_hub_that_does_not_answer_is_not_waited_for(server, monkeypatch):
    asked = []
    monkeypatch.setattr(locate, "answers", asked.append)
    monkeypatch.setattr(locate, "hf_hub_download", lambda *args: pytest.fail("asked the hub"))
    published = PublishedFile("weights.bin", server.url + "/absent", SHA256, "owner/repo")
    server.statuses = [404]
    with pytest.raises(CheckpointError, match=r"answered 404.*owner/repo on the hub: no answer"):
        find_checkpoint("m", published, None)
    assert [url.endswith("/owner/repo/resolve/main/model.safetensors") for url in asked] == [True]


@pytest.mark.parametrize("status", [200, 401, 404, 500])
def test_any_status_is_an_answer(server, status):
    server.statuses = [status]
    assert download.answers(server.url)


def test_a_closed_port_is_no_answer(closed_url):
    assert not download.answers(closed_url)


def test_a_wrong_sum_is_not_answered_with_the_hub(server, published, monkeypatch):
    published = PublishedFile("weights.bin", server.url, "0" * 64, "owner/repo")
    monkeypatch.setattr(locate, "hf_hub_download", lambda *args: pytest.fail("asked the hub"))
    with pytest.raises(CheckpointError, match="should have 0000"):
        find_checkpoint("m", published, None)


def test_what_the_hub_has_cached_is_not_downloaded_again(tmp_path, server, monkeypatch):
    path = put(tmp_path / "model.safetensors", b"hub")
    monkeypatch.setattr(locate, "try_to_load_from_cache", lambda *args: str(path))
    published = PublishedFile("weights.bin", server.url, SHA256, "owner/repo")
    assert find_checkpoint("m", published, None).path == path
    assert server.requests == []


# --- at once -------------------------------------------------------------------------------------


def start_process(published):
    """A process that succeeds where it finds the right file; forked, as imports take seconds."""

    def find():
        assert find_checkpoint("m", published, None).sha256 == SHA256

    process = multiprocessing.get_context("fork").Process(target=find)
    process.start()
    return process


def test_processes_at_once_download_once(cache, server, published):
    server.pause_s = 0.5
    processes = [start_process(published) for _ in range(3)]
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (cache / "weights.bin").read_bytes() == CONTENT
    assert server.requests == [""]


def test_threads_at_once_download_once(cache, server, published):
    server.pause_s = 0.3
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(find_checkpoint("m", published, None)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [LocatedWeights(cache / "weights.bin", SHA256)] * 4
    assert server.requests == [""]


def test_a_process_that_dies_leaves_a_file_to_resume(cache, server, published):
    server.pause_s = 2.0
    process = start_process(published)
    partial = cache / "weights.bin.part"
    while not (partial.exists() and partial.stat().st_size):
        assert process.is_alive()
        time.sleep(0.02)
    process.kill()
    process.join()
    server.pause_s = 0.0
    assert find_checkpoint("m", published, None).path.read_bytes() == CONTENT
    assert server.requests[1].startswith("bytes=")
