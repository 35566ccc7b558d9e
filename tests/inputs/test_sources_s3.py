"""The same inputs, here and on an object store: the same ids and the same bytes."""

import io
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from amg import ConfigError, ImageError
from amg.errors import StorageError
from amg.inputs.reading import read_source
from amg.inputs.sources import ImageSource, SourceOptions, list_sources

# fmt: off
NAMES = (
    "b.jpg", "a/2.PNG", "a/10.png", "a/notes.json", "c.webp", ".hidden.jpg", "a.b/x.jpg", "A.jpg",
    "a/a/1.jpg", "[1]*.jpg", "e::f.jpg", "h#1.jpg", "%41.jpg", "é.jpg", "q ?x=1.jpg", "empty.jpg",
    "sub/.jpg.d/x.jpg",
)
# fmt: on
FILES = {name: f"bytes of {name}".encode() * 9 for name in NAMES} | {"empty.jpg": b""}


@pytest.fixture
def both(tmp_path, s3):
    """A folder with everything in it, and the bucket it was copied to."""
    import s3fs

    folder = tmp_path / "in"
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "list.txt").write_text("# some\nb.jpg\na/2.PNG\nmissing.jpg\n")
    with tarfile.open(folder / "t.tar", "w") as tar:
        for name, data in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    data = list(FILES.values())
    table = pa.table({"image": data, "uri": list(FILES), "n": list(range(len(data)))})
    pq.write_table(table, folder / "t.parquet", row_group_size=4)
    store = s3fs.S3FileSystem()
    for path in folder.rglob("*"):
        if path.is_file():
            store.pipe_file(f"{s3}/in/{path.relative_to(folder)}", path.read_bytes())
    return folder, f"s3://{s3}/in"


def contents(given, **options):
    return [(s.image_id, _read(s)) for s in list_sources([given], SourceOptions(**options))]


def _read(source):
    try:
        return read_source(source)
    except ImageError as error:
        return error.status


@pytest.mark.parametrize(
    "given",
    ["", "/a", "/**/*.jpg", "/a*", "/*", "/t.tar", "/*.tar", "/list.txt", "/t.parquet", "/b.jpg"],
)
def test_ids_and_bytes_are_the_local_ones(both, given):
    folder, url = both
    local = contents(f"{folder}{given}")
    assert local
    assert contents(f"{url}{given}") == local


def test_tables_by_uri_and_id(both):
    folder, url = both
    options = {"uri_column": "uri", "id_column": "n"}
    local = contents(folder / "t.parquet", **options)
    assert [data for _, data in local] == list(FILES.values())
    assert contents(f"{url}/t.parquet", **options) == local


def test_sizes_and_addresses(both):
    _, url = both
    by_id = {source.image_id: source for source in list_sources([url])}
    assert by_id["a/10.png"].size == len(FILES["a/10.png"])
    assert by_id["a/10.png"].uri == f"{url}/a/10.png"
    assert by_id["a/10.png"].path == f"{url}/a/10.png".encode()


def test_files_without_a_suffix_are_taken_and_marks_of_folders_are_not(s3):
    import s3fs

    store = s3fs.S3FileSystem()
    for key in ("d/", "d/photo", "d/x.json", "d/e/", "d/e/y.jpg"):
        store.pipe_file(f"{s3}/{key}", b"" if key.endswith("/") else b"1")
    assert [s.image_id for s in list_sources([f"s3://{s3}/d/"])] == ["photo", "e/y.jpg"]
    assert [s.image_id for s in list_sources([f"s3://{s3}"])] == ["d/photo", "d/e/y.jpg"]
    store.pipe_file(f"{s3}/d//lost.jpg", b"1")
    with pytest.raises(ConfigError, match="keys with '//'"):
        list(list_sources([f"s3://{s3}/d"]))


def test_what_is_not_there(s3):
    for given in (f"s3://{s3}/none", f"s3://{s3}/none/*.jpg", "s3://no-such-bucket-here/x"):
        with pytest.raises(ConfigError, match=given.replace("*", r"\*")):
            list(list_sources([given]))
    lost = ImageSource("a", "a", b"s3://no-such-bucket-here/x.jpg")
    assert _read(lost) == "missing"


def test_a_store_out_of_reach_is_no_missing_image(s3, monkeypatch):
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(StorageError, match="EndpointConnectionError"):
        read_source(ImageSource("a", "a", f"s3://{s3}/a.jpg".encode()))
    with pytest.raises(StorageError):
        list(list_sources([f"s3://{s3}/"]))
