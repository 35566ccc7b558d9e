import io
import os
import subprocess
import tarfile

import pytest

from amg import ConfigError, ImageError
from amg.errors import StorageError
from amg.inputs.reading import read_source
from amg.inputs.sources import list_sources

LONG = "folder/" + "n" * 180 + "/" + "m" * 150 + ".jpg"


def write_tar(path, members, **options):
    with tarfile.open(path, "w", **options) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_long_and_strange(tmp_path, form):
    names = [LONG, "ünï.jpg", "new\nline.png", "./a.jpg", os.fsdecode(b"caf\xe9.jpg"), "b.GIF"]
    members = [(name, f"data {i}".encode() * (i * 300)) for i, name in enumerate(names)]
    write_tar(tmp_path / "a.tar", members, format=form, encoding="utf-8", errors="surrogateescape")
    sources = list(list_sources([tmp_path / "a.tar"]))
    shown = [name.encode("utf-8", "surrogateescape") for name in names]
    assert [source.image_id for source in sources] == [
        "a.tar::" + name.decode("utf-8", "backslashreplace") for name in shown
    ]
    assert [read_source(source) for source in sources] == [data for _, data in members]


def test_only_regular_images_are_members(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind in [("d.jpg", tarfile.DIRTYPE), ("l.jpg", tarfile.SYMTYPE)]:
            info = tarfile.TarInfo(name)
            info.type = kind
            tar.addfile(info)
        for name in ("a.json", "._a.jpg", "a.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"123"))
    assert [source.image_id for source in list_sources([path])] == ["a.tar::a.jpg"]


def test_a_tar_without_images_is_an_error(tmp_path):
    write_tar(tmp_path / "a.tar", [("a.json", b"{}")])
    with pytest.raises(ConfigError, match=r"a\.tar'.*no image"):
        list(list_sources([tmp_path / "a.tar"]))


def test_damage_is_an_error_that_says_where(tmp_path):
    path = tmp_path / "a.tar"
    write_tar(path, [("a.jpg", b"x" * 1000), ("b.jpg", b"y" * 1000)])
    whole = path.read_bytes()
    path.write_bytes(whole[:1536] + b"?" + whole[1537:])  # the second header
    with pytest.raises(ConfigError, match=r"a\.tar'.*damaged tar.*checksum at byte 1536"):
        list(list_sources([path]))
    path.write_bytes(whole[:2500])
    with pytest.raises(ConfigError, match=r"'b\.jpg' at byte 1536 is cut short"):
        list(list_sources([path]))
    path.write_bytes(whole[:1700])
    with pytest.raises(ConfigError, match="truncated header at byte 1536"):
        list(list_sources([path]))
    path.write_bytes(b"")
    with pytest.raises(ConfigError, match="damaged tar, or none"):
        list(list_sources([path]))
    path.write_bytes(whole[: 1536 + 1536])  # no end mark: some writers leave it out
    assert len(list(list_sources([path]))) == 2


@pytest.mark.parametrize(
    "size", [b"\xff" * 12, b"\xff" * 8 + b"\xff\xff\xfc\x00", b"\x80" + b"\xff" * 11]
)
def test_hostile_sizes_end(tmp_path, size):
    path = tmp_path / "a.tar"
    info = tarfile.TarInfo("a.jpg").tobuf(tarfile.GNU_FORMAT)
    header = bytearray(info)
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(bytes(header) + b"\0" * 10240)
    with pytest.raises(ConfigError, match="damaged tar"):
        list(list_sources([path]))


def test_endless_long_names_end(tmp_path):
    info = tarfile.TarInfo("././@LongLink")
    info.type = tarfile.GNUTYPE_LONGNAME
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) * 5000)
    with pytest.raises(ConfigError, match="damaged tar"):
        list(list_sources([tmp_path / "a.tar"]))


def test_sparse_members_are_refused(tmp_path):
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(10**6)
        file.seek(10**6)
        file.write(b"end")
    command = ["tar", "-S", "-cf", "a.tar", "a.jpg"]
    if subprocess.run(command, cwd=tmp_path, check=False).returncode:
        pytest.skip("GNU tar is needed")
    with tarfile.open(tmp_path / "a.tar") as tar:
        if not tar.getmembers()[0].issparse():
            pytest.skip("this file system makes no holes")
    with pytest.raises(ConfigError, match=r"'a\.jpg' at byte 0 is sparse"):
        list(list_sources([tmp_path / "a.tar"]))


def test_compressed_tars_by_another_name_are_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
    with pytest.raises(ConfigError, match="decompress"):
        list(list_sources([tmp_path / "a.tar"]))


def test_reading_a_member_that_changed(tmp_path):
    path = tmp_path / "a.tar"
    write_tar(path, [("a.jpg", b"x" * 1000)])
    (source,) = list_sources([path])
    with pytest.raises(ImageError) as caught:
        read_source(source, max_bytes=999)
    assert caught.value.status == "too_large"
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(StorageError, match="88 of 1000 bytes at 512"):
        read_source(source)
    path.unlink()
    with pytest.raises(ImageError) as caught:
        read_source(source)
    assert caught.value.status == "missing"
