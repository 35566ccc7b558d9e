import logging
import os
import shutil
import socket
import tarfile
from pathlib import Path

import pytest

from amg import ConfigError
from amg.inputs.folders import Glob, looks_like_image
from amg.inputs.reading import read_source
from amg.inputs.sources import list_sources
from amg.runs.folder import REPORT_PAGES
from amg.storage.urls import from_bytes, without_secrets

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 40
JPEG = b"\xff\xd8\xff\xe0" + b"\0" * 40
HOSTILE = ["new\nline.jpg", "quote'\".png", "[1]*.jpg", "x" * 246 + ".jpg", "ünï.jpg", "%41 ?.jpg"]


def touch(folder, *names, data=b""):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def ids(*inputs, **options):
    return [source.image_id for source in list_sources(inputs, **options)]


# Files and folders


def test_folders_are_walked_in_order_and_ids_are_relative_paths(tmp_path):
    touch(tmp_path, "b.jpg", "a/2.PNG", "a/10.png", "a/notes.txt", "c.webp", ".hidden.jpg")
    touch(tmp_path, "a/a/1.jpg", ".cache/1.jpg")
    assert ids(tmp_path) == ["b.jpg", "c.webp", "a/10.png", "a/2.PNG", "a/a/1.jpg"]


def test_reports_of_runs_are_passed_over_and_nothing_else(tmp_path):
    touch(tmp_path, "a.jpg", "report/1.jpg", "out/2.jpg", "out/sub/3.jpg", "half/report/4.jpg")
    touch(tmp_path, "out/plan.json", "out/inputs.parquet", "out/report/images/5.jpg")
    touch(tmp_path, "half/plan.json")
    found = ["a.jpg", "half/report/4.jpg", "out/2.jpg", "out/sub/3.jpg", "report/1.jpg"]
    assert ids(tmp_path, passed_over=REPORT_PAGES) == found
    assert ids(tmp_path / "out", passed_over=REPORT_PAGES) == ["2.jpg", "sub/3.jpg"]
    assert ids(tmp_path / "out/report", passed_over=REPORT_PAGES) == ["images/5.jpg"]
    assert "out/report/images/5.jpg" in ids(tmp_path)


def test_a_file_is_taken_whatever_its_name(tmp_path):
    touch(tmp_path, "photo", data=b"123")
    (source,) = list_sources([tmp_path / "photo"])
    assert source.image_id == "photo"
    assert source.path == os.fsencode(tmp_path / "photo")
    assert (source.uri, source.size) == (str(tmp_path / "photo"), 3)


def test_paths_hold_in_another_working_folder(tmp_path, monkeypatch):
    touch(tmp_path, "in/a.jpg")
    monkeypatch.chdir(tmp_path)
    for given in ("in", "in/a.jpg", "in/*.jpg", f"file://{tmp_path}/in/a.jpg"):
        (source,) = list_sources([given])
        assert source.path == os.fsencode(tmp_path / "in/a.jpg")
        assert source.image_id == "a.jpg"


def test_ids_that_occur_twice_are_left_to_the_plan(tmp_path):
    touch(tmp_path, "one/a.jpg", "two/a.jpg")
    assert ids(tmp_path / "one", tmp_path / "two") == ["a.jpg", "a.jpg"]


def test_inputs_that_are_not_there_are_named_before_any_is_listed(tmp_path):
    touch(tmp_path, "a.jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"nowhere.*No such file"):
        next(list_sources([tmp_path, tmp_path / "nowhere"]))
    with pytest.raises(ConfigError, match=r"empty': no image \(\.apng"):
        ids(tmp_path / "empty")
    with pytest.raises(ConfigError, match="none given"):
        ids()


def test_links_to_folders_are_not_followed_so_loops_end(tmp_path):
    touch(tmp_path, "a.jpg", "sub/b.jpg")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "sub" / "up.jpg").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "self.jpg").symlink_to("self.jpg")
    (tmp_path / "broken.jpg").symlink_to("nothing")
    assert ids(tmp_path) == ["a.jpg", "broken.jpg", "self.jpg", "sub/b.jpg"]
    assert ids(f"{tmp_path}/**/*.jpg") == ids(tmp_path)


def test_pipes_and_sockets_are_planned_by_name_and_never_opened(tmp_path, monkeypatch):
    touch(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
        assert ids(tmp_path) == ["a.jpg", "pipe.jpg", "socket.png"]
    os.mkfifo(tmp_path / "list.txt")
    with pytest.raises(ConfigError, match="not a regular file"):
        ids(tmp_path / "list.txt")


def test_hostile_names_stay_what_they_are(tmp_path):
    touch(tmp_path, *HOSTILE)
    sources = list(list_sources([tmp_path]))
    assert [source.image_id for source in sources] == sorted(HOSTILE)
    assert [source.path for source in sources] == [
        os.fsencode(tmp_path / name) for name in sorted(HOSTILE)
    ]


def test_names_that_are_not_utf8_become_text(tmp_path):
    try:
        touch(tmp_path, os.fsdecode(b"caf\xe9.jpg"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (source,) = list_sources([tmp_path])
    assert source.image_id == "caf\\xe9.jpg"
    assert Path(os.fsdecode(source.path)).exists()
    source.uri.encode("utf-8")
    (tmp_path / "list.txt").write_bytes(b"caf\xe9.jpg\n")
    (listed,) = list_sources([tmp_path / "list.txt"])
    assert listed == source


def test_a_folder_that_cannot_be_listed_is_an_error_not_a_gap(tmp_path, monkeypatch):
    touch(tmp_path, "a.jpg", "locked/b.jpg")
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path).rstrip("/").endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root may read all: chmod would not do
    with pytest.raises(ConfigError, match=r"locked.*Permission denied"):
        ids(tmp_path)


def test_deep_folders_need_no_deep_stack(tmp_path):
    folder = tmp_path
    for _ in range(1200):
        folder = folder / "d"
        folder.mkdir()
    touch(folder, "a.jpg")
    assert ids(tmp_path) == ["d/" * 1200 + "a.jpg"]
    while folder != tmp_path:  # shutil.rmtree does need one, and pytest uses it
        shutil.rmtree(folder)
        folder = folder.parent


# What counts as an image


def test_files_without_an_images_suffix_are_known_by_their_beginning(tmp_path, caplog):
    touch(tmp_path, "photo", "d41d8", "scan.dat", data=PNG)
    touch(tmp_path, "a.json", "b.json", "c", ".x.jpg", ".git/d.jpg", data=b"{}")
    touch(tmp_path, "raw.nef", data=b"II*\0" + b"\0" * 40)
    with caplog.at_level(logging.INFO, "amg"):
        assert ids(tmp_path) == ["d41d8", "photo", "scan.dat"]
    (record,) = [r for r in caplog.records if "skipped" in r.message]
    assert record.message == (
        "skipped 6 files that are no images: .json 2, hidden files 1, others 1, .nef 1, "
        "hidden folders 1"
    )


@pytest.mark.parametrize(
    ("start", "is_image"),
    [
        (JPEG, True),
        (b"GIF89a", True),
        (b"RIFF\0\0\0\0WEBPVP8 ", True),
        (b"RIFF\0\0\0\0WAVEfmt ", False),
        (b"BM" + b"\0" * 12 + b"\x28\0\0\0", True),
        (b"BMW is a car, and not a bitmap", False),
        (b"II*\0", True),
        (b"MM\0*", True),
        (b"\0\0\0\x20ftypavif", True),
        (b"\0\0\0\x20ftypheic", True),
        (b"\0\0\0\x20ftypisom", False),
        (b"", False),
    ],
)
def test_magic_numbers(start, is_image):
    assert looks_like_image(start) is is_image


def test_a_folder_of_tars_says_what_to_give(tmp_path):
    touch(tmp_path, "data/a.parquet", "tars/deep/b.tar")
    with pytest.raises(ConfigError, match=r"give '.*/data/\*\.parquet'"):
        ids(tmp_path / "data")
    with pytest.raises(ConfigError, match=r"give '.*/tars/\*\*/\*\.tar'"):
        ids(tmp_path / "tars")


# Globs


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg"]),
        ("**/*.jpg", ["a.jpg", "x/b.jpg", "x/y/c.jpg", "z/d.jpg"]),
        ("x/**", ["b.jpg", "y/c.jpg"]),
        ("[xz]/*.jpg", ["x/b.jpg", "z/d.jpg"]),
        ("x*", ["x/b.jpg", "x/y/c.jpg"]),
        ("?/y/*", ["x/y/c.jpg"]),
        ("**/y/**/c.*", ["x/y/c.jpg"]),
        ("**", ["a.jpg", "x/b.jpg", "x/y/c.jpg", "z/d.jpg"]),
        ("*", ["a.jpg", "x/b.jpg", "x/y/c.jpg", "z/d.jpg"]),
        ("*.dat", ["e.dat"]),
        (".*.jpg", [".f.jpg"]),
    ],
)
def test_globs(tmp_path, pattern, expected):
    touch(tmp_path, "a.jpg", "x/b.jpg", "x/y/c.jpg", "z/d.jpg", "e.dat", ".f.jpg", "x/n.json")
    assert ids(f"{tmp_path}/{pattern}") == expected


def test_globs_follow_the_links_they_name(tmp_path):
    touch(tmp_path, "real/a.jpg")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "real", target_is_directory=True)
    assert ids(f"{tmp_path}/in/l*/a.jpg") == ["linked/a.jpg"]
    assert ids(f"{tmp_path}/in/*") == ["linked/a.jpg"]
    with pytest.raises(ConfigError, match="no file matches"):
        ids(f"{tmp_path}/in/**/*.jpg")


def test_a_path_that_exists_is_no_glob(tmp_path):
    touch(tmp_path, "[a]/*.jpg", "[a]/b.jpg", "a/c.jpg")
    assert ids(f"{tmp_path}/[a]") == ["*.jpg", "b.jpg"]
    assert ids(f"{tmp_path}/[a]/*.jpg") == ["*.jpg"]


def test_a_glob_without_a_match_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="no file matches"):
        ids(f"{tmp_path}/*.jpg")


def test_captions_beside_images_are_no_lists_unless_asked_for(tmp_path):
    touch(tmp_path, "1.jpg", data=JPEG)
    (tmp_path / "1.txt").write_text("a cat on a mat")
    assert ids(f"{tmp_path}/*") == ["1.jpg"]
    assert ids(f"{tmp_path}/*.txt") == ["a cat on a mat"]


def test_hidden_names_match_no_magic():
    glob = Glob("**/*")
    assert not glob.takes(glob.start, ".a")
    assert not glob.below(glob.start, ".git")


# Lists


def test_lists(tmp_path):
    lines = b"\xef\xbb\xbf# photos\r\na b.jpg\r\n\n  \n/abs/c.jpg\ns3://key:secret@b/d.jpg?v=1\n"
    lines += b"https://h/x.jpg?sig=1\n file \nlast"
    (tmp_path / "list.lst").write_bytes(lines)
    sources = list(list_sources([tmp_path / "list.lst"]))
    assert [(s.image_id, s.uri, from_bytes(s.path)) for s in sources] == [
        ("a b.jpg", f"{tmp_path}/a b.jpg", f"{tmp_path}/a b.jpg"),
        ("/abs/c.jpg", "/abs/c.jpg", "/abs/c.jpg"),
        ("s3://b/d.jpg", "s3://b/d.jpg", "s3://key:secret@b/d.jpg?v=1"),
        ("https://h/x.jpg", "https://h/x.jpg", "https://h/x.jpg?sig=1"),
        (" file ", f"{tmp_path}/ file ", f"{tmp_path}/ file "),
        ("last", f"{tmp_path}/last", f"{tmp_path}/last"),
    ]


@pytest.mark.parametrize("data", ["a.jpg\n".encode("utf-16"), b"a.jpg\n" + b"x" * 70000])
def test_what_is_no_list_is_refused(tmp_path, data):
    (tmp_path / "list.txt").write_bytes(data)
    with pytest.raises(ConfigError, match=r"list\.txt.*line \d is no path"):
        ids(tmp_path / "list.txt")


def test_an_empty_list_is_an_input_without_image(tmp_path):
    (tmp_path / "list.txt").write_text("# nothing\n")
    with pytest.raises(ConfigError, match=r"list\.txt.*no image"):
        ids(tmp_path / "list.txt")


def test_a_missing_package_is_found_out_in_the_plan(tmp_path, monkeypatch):
    from amg.storage import access

    def refuse(scheme):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.get_filesystem_class", refuse)
    access.missing_package.cache_clear()
    (tmp_path / "list.txt").write_text("s3://b/a.jpg\n")
    try:
        with pytest.raises(ConfigError, match=r"s3:// needs a package.*Install s3fs"):
            ids(tmp_path / "list.txt")
        with pytest.raises(ConfigError, match=r"'s3://b/'.*Install s3fs"):
            ids("s3://b/")
    finally:
        access.missing_package.cache_clear()


# Tars, in files, folders and globs; what is inside them is in test_tars.py


def test_tars_by_file_and_glob(tmp_path):
    (tmp_path / "in").mkdir()
    touch(tmp_path, "a.jpg", "b.txt", data=b"12345")
    for name in ("one.tar", "two.tar"):
        with tarfile.open(tmp_path / "in" / name, "w", format=tarfile.USTAR_FORMAT) as tar:
            tar.add(tmp_path / "a.jpg", "x/a.jpg")
            tar.add(tmp_path / "b.txt", "x/b.txt")
    (source,) = list_sources([tmp_path / "in" / "one.tar"])
    assert source.image_id == "one.tar::x/a.jpg"
    assert source.uri == f"{tmp_path}/in/one.tar::x/a.jpg"
    assert (source.offset, source.size) == (512, 5)
    assert ids(f"{tmp_path}/*/*.tar") == ["in/one.tar::x/a.jpg", "in/two.tar::x/a.jpg"]


@pytest.mark.parametrize("name", ["a.tar.gz", "a.TGZ", "a.zip"])
def test_packed_inputs_are_refused(tmp_path, name):
    touch(tmp_path, name)
    with pytest.raises(ConfigError, match="unpack"):
        ids(tmp_path / name)


# Addresses


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://user:pass@host:80/a@b.jpg?sig=x#y", "https://host:80/a@b.jpg"),
        ("https://host/a.jpg#frag", "https://host/a.jpg"),
        ("s3://bucket/a#b.jpg", "s3://bucket/a#b.jpg"),
        ("s3://bucket/what?.jpg", "s3://bucket/what?.jpg"),
        ("s3://bucket/a.jpg?versionId=x", "s3://bucket/a.jpg"),
        ("s3://bucket/a@b.jpg", "s3://bucket/a@b.jpg"),
        ("abfs://box@account.host/a.jpg", "abfs://box@account.host/a.jpg"),
        ("https://host?sig=x/y", "https://host"),
        ("https://u:p@host", "https://host"),
    ],
)
def test_urls_lose_their_secrets(url, expected):
    assert without_secrets(url) == expected


@pytest.mark.parametrize(
    "url", ["memory://", "memory://box", "memory:///box/", "memory://**/*.jpg"]
)
def test_folders_of_a_storage(url, monkeypatch):
    import fsspec

    files = fsspec.filesystem("memory")
    monkeypatch.setattr(type(files), "store", {})  # other tests' files lie there too
    files.pipe_file("/box/a.jpg", b"1")
    try:
        (source,) = list_sources([url])
        assert source.image_id == ("a.jpg" if "box" in url else "box/a.jpg")
        assert from_bytes(source.path).startswith("memory://")
        assert read_source(source) == b"1"
    finally:
        files.rm("/box", recursive=True)
