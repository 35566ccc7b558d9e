import os
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from amg import ConfigError, ImageError
from amg.inputs import cells
from amg.inputs.allowed import settle
from amg.inputs.reading import read_source
from amg.inputs.sources import SourceOptions, list_sources
from amg.storage.opened import OpenFile

CELLS = [f"picture {i}".encode() * (i % 7 + 1) for i in range(100)]


def write_parquet(path, table, **options):
    pq.write_table(table, path, **options)


def write_file(path, table):
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=9)


def write_stream(path, table):
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=9)


def write_feather(path, table):
    feather.write_feather(table, str(path), compression="lz4", chunksize=9)


WRITERS = {
    "a.parquet": lambda path, table: write_parquet(path, table, row_group_size=9),
    "a.arrow": write_stream,
    "b.arrow": write_file,
    "a.feather": write_feather,
}
each_format = pytest.mark.parametrize("name", WRITERS)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(cells, "_CHUNK_BYTES", 100)


def hf_table(data, paths):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": d, "path": p} for d, p in zip(data, paths, strict=True)]
    return pa.table({"image": pa.array(rows, kind), "label": list(range(len(rows)))})


def list_all(path, allow=None, **options):
    return list(list_sources([path], SourceOptions(**options), allow=settle(allow)))


@each_format
@pytest.mark.parametrize("column", ["uri", "url", "path", "file_name", "image_path"])
def test_columns_of_addresses(tmp_path, name, column):
    values = ["sub/a.jpg", "/abs/b.jpg", "s3://user:pass@b/c.jpg?x=1"]
    WRITERS[name](tmp_path / name, pa.table({"n": [1, 2, 3], column: values}))
    sources = list_all(tmp_path / name, allow=["/", "s3://b"])
    assert [s.image_id for s in sources] == ["sub/a.jpg", "/abs/b.jpg", "s3://b/c.jpg"]
    assert [s.path for s in sources] == [
        os.fsencode(tmp_path / "sub/a.jpg"), b"/abs/b.jpg", b"s3://user:pass@b/c.jpg?x=1"
    ]  # fmt: skip
    assert sources[2].uri == "s3://b/c.jpg"
    assert all(s.row is None and s.column is None for s in sources)


@each_format
@pytest.mark.parametrize(
    "ids", [[7, -8, 9], ["x", "y z", "ü"], pa.array(["k", "l", "k"]).dictionary_encode()]
)
def test_ids_from_a_column(tmp_path, name, ids):
    table = pa.table({"key": ids, "uri": ["a.jpg", "b.jpg", "c.jpg"]})
    WRITERS[name](tmp_path / name, table)
    sources = list_all(tmp_path / name, id_column="key")
    assert [s.image_id for s in sources] == [str(value) for value in table["key"].to_pylist()]
    assert [s.uri for s in sources] == [f"{tmp_path}/{c}.jpg" for c in "abc"]


@each_format
@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_cells_are_images(tmp_path, name, kind):
    WRITERS[name](tmp_path / name, pa.table({"jpg": pa.array(CELLS, kind)}))
    sources = list_all(tmp_path / name)
    assert sources[3].image_id == f"{name}::3"
    assert sources[3].uri == f"{tmp_path}/{name}::3"
    assert (sources[3].column, sources[3].row) == ("jpg", 3)
    assert [read_source(source) for source in sources] == CELLS
    assert [read_source(source) for source in reversed(sources)] == CELLS[::-1]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read_source, sources)) == CELLS


@each_format
def test_structs_as_hugging_face_writes_them(tmp_path, name):
    (tmp_path / "beside.jpg").write_bytes(b"beside")
    paths = ["x.jpg", "beside.jpg", str(tmp_path / "beside.jpg"), "gone.jpg", None]
    WRITERS[name](tmp_path / name, hf_table([b"inside", None, None, None, None], paths))
    sources = list_all(tmp_path / name, id_column="label")
    assert [s.image_id for s in sources] == ["0", "1", "2", "3", "4"]
    assert [read_source(source) for source in sources[:3]] == [b"inside", b"beside", b"beside"]
    for source in sources[3:]:
        with pytest.raises(ImageError) as caught:
            read_source(source)
        assert caught.value.status == "missing"


@pytest.mark.parametrize("chunk_bytes", [1, 50, 10**6])
@pytest.mark.parametrize("group", [1, 7, 1000])
def test_cells_in_any_order_and_any_chunk(tmp_path, monkeypatch, chunk_bytes, group):
    monkeypatch.setattr(cells, "_CHUNK_BYTES", chunk_bytes)
    write_parquet(tmp_path / "a.parquet", pa.table({"png": CELLS}), row_group_size=group)
    sources = list_all(tmp_path / "a.parquet")
    for step in (1, 37, 99, 63):
        for i in range(0, 100 * step, step):
            assert read_source(sources[i % 100]) == CELLS[i % 100]


def test_only_the_rows_near_by_are_read(tmp_path, monkeypatch):
    big = [bytes([i]) * 100_000 for i in range(50)]
    table = pa.table({"id": [str(i) for i in range(50)], "image": big})
    write_parquet(tmp_path / "a.parquet", table, row_group_size=5, compression="none")
    read = []
    readinto = OpenFile.readinto
    monkeypatch.setattr(
        "amg.storage.opened.OpenFile.readinto",
        lambda self, buffer: read.append(readinto(self, buffer)) or read[-1],
    )
    sources = list_all(tmp_path / "a.parquet", id_column="id")
    assert sum(read) < 200_000  # of 5 MB: the plan reads no picture
    read.clear()
    assert read_source(sources[27]) == big[27]
    assert sum(read) < 1_000_000  # one row group
    read.clear()
    assert [read_source(source) for source in sources[28:30]] == big[28:30]
    assert sum(read) < 500_000  # what is open is not opened again


def test_a_table_written_anew_gives_the_new_rows(tmp_path):
    write_parquet(tmp_path / "a.parquet", pa.table({"png": [b"old"]}))
    (source,) = list_all(tmp_path / "a.parquet")
    assert read_source(source) == b"old"
    write_parquet(tmp_path / "b.parquet", pa.table({"png": [b"new bytes"]}))
    (tmp_path / "b.parquet").rename(tmp_path / "a.parquet")
    assert read_source(source) == b"new bytes"


def test_cells_that_cannot_be_read(tmp_path):
    path = tmp_path / "a.parquet"
    write_parquet(path, pa.table({"png": pa.array([b"12345", None], pa.binary())}))
    first, second = list_all(path)
    with pytest.raises(ImageError) as caught:
        read_source(first, max_bytes=4)
    assert caught.value.status == "too_large"
    with pytest.raises(ImageError, match="null"):
        read_source(second)
    write_parquet(path, pa.table({"png": [b"1"]}))
    with pytest.raises(ImageError, match="no such row"):
        read_source(second)
    write_parquet(path, pa.table({"other": [b"1"]}))
    with pytest.raises(ImageError, match="no column 'png'"):
        read_source(second)
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(ImageError) as caught:
        read_source(first)
    assert caught.value.status == "decode_error"
    path.unlink()
    with pytest.raises(ImageError) as caught:
        read_source(first)
    assert caught.value.status == "missing"


@each_format
@pytest.mark.parametrize(("column", "word"), [("uri", "null"), ("key", "null"), ("empty", "empty")])
def test_rows_without_id_or_uri_are_named(tmp_path, name, column, word):
    values = [f"{i}.jpg" for i in range(20)]
    table = {"uri": list(values), "key": list(values), "empty": list(values)}
    table[column][17] = "" if word == "empty" else None
    WRITERS[name](tmp_path / name, pa.table(table))
    with pytest.raises(ConfigError, match=f"{name}': row 17: column '{column}' is {word}"):
        list_all(tmp_path / name, id_column="key", uri_column="uri" if word == "null" else column)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"uri_column": "nope"}, r"no one uri column 'nope'; it has 'n' \(int64\)"),
        ({"uri_column": "n"}, "uri column 'n' is int64, not text"),
        ({"image_column": "n"}, "image column 'n' is int64, not binary"),
        ({"image_column": "b", "id_column": "b"}, "id column 'b' is binary"),
        ({"image_column": "b", "uri_column": "t"}, "not both"),
        ({}, "no text column named uri, url"),
    ],
)
def test_columns_that_do_not_fit(tmp_path, options, message):
    write_parquet(tmp_path / "a.parquet", pa.table({"n": [1], "b": [b""], "t": ["x"]}))
    with pytest.raises(ConfigError, match=message):
        list_all(tmp_path / "a.parquet", **options)


def test_pictures_are_preferred_to_addresses(tmp_path):
    write_parquet(tmp_path / "a.parquet", pa.table({"url": ["http://h/x"], "jpg": [b"1"]}))
    assert list_all(tmp_path / "a.parquet")[0].column == "jpg"
    assert list_all(tmp_path / "a.parquet", uri_column="url")[0].path == b"http://h/x"


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.feather"])
@pytest.mark.parametrize("data", [b"", b"PAR1", b"ARROW1\0\0", b"FEA1", b"\xff" * 64, b"x" * 5000])
def test_damaged_tables_are_refused(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError, match=name):
        list_all(tmp_path / name)


@each_format
def test_cut_tables_never_end_early_in_silence(tmp_path, name):
    WRITERS[name](tmp_path / name, pa.table({"uri": [f"{i}.jpg" for i in range(100)]}))
    whole = (tmp_path / name).read_bytes()
    for kept in range(0, len(whole) - 9, 97):
        (tmp_path / name).write_bytes(whole[:kept])
        with pytest.raises(ConfigError):
            list_all(tmp_path / name)
