import os

import pytest

from amg import ConfigError
from amg.io.sources import find_images


def _touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_folders_are_walked_in_order_and_ids_are_relative_paths(tmp_path):
    _touch(tmp_path, "b.jpg", "a/2.PNG", "a/10.png", "a/notes.txt", "c.webp", ".hidden")
    assert [source.image_id for source in find_images([tmp_path])] == [
        "b.jpg",
        "c.webp",
        "a/10.png",
        "a/2.PNG",
    ]


def test_a_file_is_taken_whatever_its_name(tmp_path):
    _touch(tmp_path, "photo")
    (source,) = find_images([tmp_path / "photo"])
    assert source.image_id == "photo"
    assert source.path == tmp_path / "photo"


def test_ids_that_occur_twice_are_refused_and_named(tmp_path):
    _touch(tmp_path, "one/a.jpg", "two/a.jpg")
    with pytest.raises(ConfigError, match=r"1 image ids .*'a\.jpg'"):
        find_images([tmp_path / "one", tmp_path / "two"])


def test_inputs_that_are_not_there_are_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere"):
        find_images([tmp_path / "nowhere"])
    with pytest.raises(ConfigError, match="no image"):
        find_images([tmp_path])


def test_a_loop_of_links_ends(tmp_path):
    _touch(tmp_path, "a.jpg")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert len(find_images([tmp_path])) == 1


def test_names_that_are_not_utf8_become_text(tmp_path):
    try:
        _touch(tmp_path, os.fsdecode(b"caf\xe9.jpg"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (source,) = find_images([tmp_path])
    assert source.image_id == "caf\\xe9.jpg"
    assert source.path.exists()
    source.uri.encode("utf-8")


def test_a_folder_that_cannot_be_listed_is_an_error_not_a_gap(tmp_path, monkeypatch):
    _touch(tmp_path, "a.jpg", "locked/b.jpg")
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root may read all: chmod would not do
    with pytest.raises(ConfigError, match=r"locked.*Permission denied"):
        find_images([tmp_path])
