import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from amg import Mask, ShardError
from amg.io.schema import SCHEMA, ImageRow, from_table, to_table
from amg.io.shards import ShardWriter, read_shard
from amg.ops import rle


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


def test_a_shard_holds_rows_and_metadata(tmp_path):
    path = tmp_path / "data" / "part-00000.parquet"
    rows = [_row("a"), FAILED, _row("bcd", 5)]
    with ShardWriter(path, {"amg.model": "nano"}) as shard:
        for row in rows:
            shard.write(row)
    assert list(read_shard(path)) == rows
    metadata = pq.read_schema(path).metadata
    assert metadata[b"amg.model"] == b"nano"
    assert metadata[b"amg.schema_version"] == b"1"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_large_shards_have_several_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr("amg.io.shards._ROW_GROUP_BYTES", 1000)
    path = tmp_path / "part.parquet"
    with ShardWriter(path, {}) as shard:
        for i in range(20):
            shard.write(_row(f"image-{i:02d}"))
    assert pq.read_metadata(path).num_row_groups > 3
    assert [row.image_id for row in read_shard(path)] == [f"image-{i:02d}" for i in range(20)]


def test_an_error_leaves_nothing_behind(tmp_path):
    path = tmp_path / "part.parquet"
    with pytest.raises(KeyError), ShardWriter(path, {}) as shard:
        shard.write(_row("a"))
        raise KeyError("stop")
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_the_shard_before_alone(tmp_path):
    path = tmp_path / "part.parquet"
    with ShardWriter(path, {}) as shard:
        shard.write(_row("a"))
    before = path.read_bytes()
    with pytest.raises(KeyError), ShardWriter(path, {}) as shard:
        shard.write(_row("b"))
        raise KeyError("stop")
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(ShardError, match=r"part\.parquet"):
        ShardWriter(tmp_path / "data" / "part.parquet", {})


def test_what_is_no_shard_is_refused(tmp_path):
    text, other = tmp_path / "text.parquet", tmp_path / "other.parquet"
    text.write_text("hello")
    pq.write_table(pa.table({"a": [1]}), other)
    for path in (text, other):
        with pytest.raises(ShardError, match=path.name):
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
    ]
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
    }
