import hashlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from amg import Mask, ShardError
from amg.errors import StorageError
from amg.ops import rle
from amg.records import Embedding, Prompt
from amg.runs.schema import READABLE, SCHEMA, ImageRow, PromptError, from_table, to_table
from amg.runs.shards import (
    RowReader,
    ShardWriter,
    check_shard,
    read_ids,
    read_rows,
    read_shard,
    read_statuses,
)
from amg.storage.failpoints import ENVIRONMENT


def _row(name, n_masks=2):
    rng = np.random.default_rng(len(name))
    bits = rng.random((n_masks, 6, 9)) < 0.5
    masks = tuple(
        Mask(
            rle=encoded,
            area=rle.area(encoded),
            bbox_xywh=(1.0, 2.0, 3.0, 4.0),
            predicted_iou=0.5,
            stability_score=0.75,
            point_xy=(4.5, 2.5),
            crop_box_xywh=(0, 0, 9, 6),
            crop_layer=1,
            level=2,
        )
        for encoded in rle.encode_masks(bits)
    )
    return ImageRow(name, f"/photos/{name}", "ok", None, 6, 9, "RGB", "ab" * 32, masks, 0.25, 1, 2)


FAILED = ImageRow("bad.jpg", "/photos/bad.jpg", "decode_error", "empty file (0 bytes)")


def test_rows_survive_arrow_and_back():
    rows = [_row("a"), FAILED, _row("empty", 0)]
    assert list(from_table(to_table(rows))) == rows


def _with_candidates(name):
    """A row whose second mask lies in its first, and what they were chosen from."""
    row = _row(name)
    masks = row.masks[0], replace(row.masks[1], parent=0)
    return replace(row, masks=masks, candidates=_row(f"all of {name}", 5).masks)


def test_parents_and_candidates_survive_arrow_and_back():
    rows = [_with_candidates("a"), _row("without"), replace(_row("none", 0), candidates=())]
    assert list(from_table(to_table(rows))) == rows


def test_prompts_and_their_errors_survive_a_file(tmp_path):
    box = (1.5, 2.5, 6.0, 5.0)
    points = {"points_xy": ((2.5, 3.0), (4.0, 1.0)), "labels": (1, 0)}
    prompts = [
        Prompt(box_xyxy=box, prompt_id="17", category="cat", score=0.5),
        Prompt(**points),
        Prompt(box_xyxy=box, **points, prompt_id="x"),
    ]
    rows = [_row("a"), replace(_row("none", 0), prompt_errors=(PromptError("3", "no box"),))]
    for name, prompt in zip("bcd", prompts, strict=True):
        (mask,) = _row(name, 1).masks
        asked = replace(mask, point_xy=None, prompt=prompt, object_score=-1.5)
        rows.append(replace(_row(name), masks=(asked,), prompt_errors=()))
    assert list(from_table(to_table(rows))) == rows
    _write(tmp_path / "part.parquet", rows)
    assert list(read_shard(tmp_path / "part.parquet")) == rows


def _write(path, rows, metadata=None):
    with ShardWriter(path, metadata or {}) as shard:
        for row in rows:
            shard.write(row)


def test_a_shard_holds_rows_and_metadata(tmp_path):
    path = tmp_path / "part-00000.parquet"
    rows = [_row("a"), FAILED, _row("bcd", 5)]
    _write(path, rows, {"amg.model": "nano"})
    assert list(read_shard(path)) == rows
    metadata = pq.read_schema(path).metadata
    assert metadata[b"amg.model"] == b"nano"
    assert metadata[b"amg.schema_version"] == b"3"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_shard_is_read_from_an_open_file_too(tmp_path):
    path = tmp_path / "part.parquet"
    rows = [_row("a"), FAILED, _row("empty", 0)]
    _write(path, rows)
    with path.open("rb") as file:
        assert list(read_shard(file, "x")) == rows
        assert list(read_ids(file, "x")) == ["a", "bad.jpg", "empty"]
        assert read_statuses(file, "x") == ["ok", "decode_error", "ok"]


def test_candidates_are_read_where_they_are_wanted(tmp_path):
    path = tmp_path / "part.parquet"
    rows = [_with_candidates("a"), _row("without")]
    _write(path, rows)
    assert list(read_shard(path, candidates=True)) == rows
    assert list(read_shard(path)) == [replace(row, candidates=None) for row in rows]


def _embedded(name, dtype="float16", size=(4, 3, 5)):
    arrays = {
        "embedding": np.random.default_rng([*name.encode()]).normal(size=size).astype(dtype),
        "at_quarter": np.arange(6, dtype=dtype).reshape(1, 2, 3),
    }
    return replace(_row(name, 0), embedding=Embedding((6, 9), arrays))


def _assert_same(found, row):
    assert replace(found, embedding=None) == replace(row, embedding=None)
    assert found.embedding.size_hw == (row.height, row.width)
    assert list(found.embedding.arrays) == list(row.embedding.arrays)
    for name, array in row.embedding.arrays.items():
        assert found.embedding.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(found.embedding.arrays[name], array)


def test_embeddings_are_read_where_they_are_wanted(tmp_path):
    path = tmp_path / "part.parquet"
    rows = [_embedded("a"), FAILED, _embedded("bcd", "float32")]
    _write(path, rows, {"amg.model": "nano", "amg.weights_sha256": "ab12"})
    found = list(read_shard(path, embedding=True))
    assert found[1] == FAILED
    _assert_same(found[0], rows[0])
    _assert_same(found[2], rows[2])
    assert (found[0].embedding.model, found[0].embedding.weights_sha256) == ("nano", "ab12")
    assert [row.embedding for row in read_shard(path)] == [None] * 3
    (row,) = read_rows(path, "x", [2], embedding=True)
    _assert_same(row, rows[2])


class CountedFile:
    """How many bytes are read."""

    def __init__(self, path):
        self.file, self.n_bytes = path.open("rb"), 0

    def read(self, *size):
        data = self.file.read(*size)
        self.n_bytes += len(data)
        return data

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_groups_of_embeddings_are_small_and_read_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("amg.runs.shards._ROW_GROUP_BYTES", 400_000)
    path = tmp_path / "part.parquet"
    rows = [_embedded(f"{i:02d}", size=(64, 32, 32)) for i in range(12)]
    _write(path, rows)
    metadata = pq.ParquetFile(path).metadata
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [4] * 3
    file = CountedFile(path)
    assert len(list(read_shard(file, "x"))) == 12
    assert file.n_bytes < path.stat().st_size / 8  # the footer, and nothing of the arrays
    file = CountedFile(path)
    reader = RowReader(file, "x")
    for place in (1, 2, 0, 3, 5, 2, 4):  # threads, one of which is behind
        _assert_same(reader.row(place), rows[place])
    assert file.n_bytes < path.stat().st_size * 3 / 4  # two groups of three, each once
    with pytest.raises(ShardError):
        reader.row(12)


def test_damaged_embeddings_are_our_error(tmp_path):
    path = tmp_path / "part.parquet"
    array = {"name": "embedding", "dtype": "float16", "shape": [2, 3], "data": bytes(12)}
    bad = [
        {"shape": [2, 4]},
        {"shape": None},
        {"dtype": "object"},
        {"dtype": "f4,("},
        {"data": None},
    ]
    for change in bad:
        values = to_table([_row("a")]).to_pylist()
        values[0]["embedding"] = [{**array, **change}]
        pq.write_table(pa.Table.from_pylist(values, schema=SCHEMA), path)
        with pytest.raises(ShardError, match="a: embedding: embedding: "):
            list(read_shard(path, embedding=True))


@pytest.mark.parametrize("schema", READABLE[1:], ids=["version 2", "version 1"])
def test_files_of_older_versions_are_read(schema, tmp_path):
    path = tmp_path / "part.parquet"
    rows = [_row("a"), FAILED]
    pq.write_table(pa.Table.from_pylist(to_table(rows).to_pylist(), schema=schema), path)
    for candidates in (False, True):
        assert list(read_shard(path, candidates=candidates)) == rows
    with path.open("rb") as file:
        assert read_statuses(file, "x") == ["ok", "decode_error"]


def test_a_shard_without_rows_can_be_written_and_read(tmp_path):
    _write(tmp_path / "part.parquet", [])
    assert list(read_shard(tmp_path / "part.parquet")) == []


def test_large_shards_have_several_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr("amg.runs.shards._ROW_GROUP_BYTES", 1000)
    path = tmp_path / "part.parquet"
    names = [f"image-{i:02d}" for i in range(20)]
    _write(path, [_row(name) for name in names])
    assert pq.read_metadata(path).num_row_groups > 3
    assert [row.image_id for row in read_shard(path)] == names
    check_shard(path, names)


def test_the_check_gives_the_sha256_of_a_file_that_holds_these_ids(tmp_path):
    path = tmp_path / "part.parquet"
    _write(path, [_row("a"), FAILED, _row("b")])
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert check_shard(path, ["a", "bad.jpg", "b"]) == expected


@pytest.mark.parametrize("ids", [["a"], ["a", "b", "c"], ["b", "a"], ["a", "c"], []])
def test_the_check_refuses_other_ids(tmp_path, ids):
    path = tmp_path / "part.parquet"
    _write(path, [_row("a"), _row("b")])
    with pytest.raises(ShardError, match=r"part\.parquet"):
        check_shard(path, ids)


@pytest.mark.parametrize("n_kept", [0, 3, 100, -1])
def test_the_check_refuses_a_file_that_is_cut_short(tmp_path, n_kept):
    path = tmp_path / "part.parquet"
    _write(path, [_row("a"), _row("b")])
    path.write_bytes(path.read_bytes()[:n_kept])
    with pytest.raises(ShardError, match=r"part\.parquet: cannot be read"):
        check_shard(path, ["a", "b"])


def test_an_error_while_rows_are_made_closes_the_file_and_passes(tmp_path):
    path = tmp_path / "part.parquet"
    with pytest.raises(KeyError, match="stop"), ShardWriter(path, {}) as shard:
        shard.write(_row("a"))
        raise KeyError("stop")
    assert list(read_shard(path)) == []
    assert shard._file.closed


def test_a_folder_that_is_not_there_is_named(tmp_path):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(StorageError, match=r"data/part\.parquet: Not a directory"):
        ShardWriter(tmp_path / "data" / "part.parquet", {})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("group_bytes", [1, 2**25])
def test_a_full_disk_is_a_storage_error(monkeypatch, group_bytes):
    monkeypatch.setattr("amg.runs.shards._ROW_GROUP_BYTES", group_bytes)
    rows = [_row(f"{i}", 20) for i in range(200)]
    with pytest.raises(StorageError, match=r"cannot write /dev/full: .*No space"):
        _write(Path("/dev/full"), rows)


def test_a_failure_to_close_the_file_is_a_storage_error(tmp_path, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, "shard.closed=full")
    with pytest.raises(StorageError, match=r"part\.parquet: No space"):
        _write(tmp_path / "part.parquet", [_row("a")])


def test_what_is_no_shard_is_refused(tmp_path):
    text, other = tmp_path / "text.parquet", tmp_path / "other.parquet"
    text.write_text("hello")
    pq.write_table(pa.table({"a": [1]}), other)
    for path in (text, other):
        for read in (read_shard, lambda p: read_ids(p, str(p)), lambda p: read_statuses(p, str(p))):
            with pytest.raises(ShardError, match=path.name):
                list(read(path))


def test_whatever_byte_is_damaged_nothing_but_our_error_is_raised(tmp_path):
    path = tmp_path / "part.parquet"
    rows = [_row(f"image-{i}") for i in range(3)]
    _write(path, rows)
    data = path.read_bytes()
    for at in range(0, len(data), 11):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        with suppress(ShardError):
            list(read_shard(path))


def test_schema_names_are_the_contract():
    assert SCHEMA.names == [
        "image_id",
        "uri",
        "status",
        "error",
        "height",
        "width",
        "source_mode",
        "sha256",
        "masks",
        "seconds",
        "candidates",
        "prompt_errors",
        "embedding",
    ]
    assert SCHEMA.field("candidates").type == SCHEMA.field("masks").type
    mask = SCHEMA.field("masks").type.value_type
    assert {mask.field(i).name: str(mask.field(i).type) for i in range(mask.num_fields)} == {
        "counts": "large_string",
        "area": "int32",
        "bbox": "fixed_size_list<item: float>[4]",
        "predicted_iou": "float",
        "stability_score": "float",
        "point": "struct<x: float, y: float>",
        "crop_box": "fixed_size_list<item: int32>[4]",
        "crop_layer": "int8",
        "level": "int8",
        "parent": "int32",
        "prompt_id": "string",
        "prompt": "struct<box: fixed_size_list<item: float>[4], "
        "points: list<item: struct<x: float, y: float, label: int8>>>",
        "category": "string",
        "score": "float",
        "object_score": "float",
    }
