"""Parts of a shard: some columns, some rows, and how it was made."""

import pytest

import amg.runs.shards as module
from amg import ShardError
from amg.runs.schema import ImageRow
from amg.runs.shards import ShardWriter, read_columns, read_metadata, read_rows, read_shard


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Ten rows in row groups of three."""
    monkeypatch.setattr(module, "_ROW_GROUP_BYTES", 600)
    path = tmp_path / "part.parquet"
    with ShardWriter(path, {"amg.version": "1.2.3"}) as writer:
        for i in range(10):
            writer.write(ImageRow(f"{i}", f"/{i}", "empty", height=i, width=1))
    return path


@pytest.mark.parametrize("places", [[], [0], [9], [2, 3], [0, 4, 5, 9], list(range(10))])
def test_rows_are_those_at_their_places(path, places):
    rows = list(read_shard(path))
    assert list(read_rows(path, "part", places)) == [rows[i] for i in places]


def test_columns_come_in_row_groups(path):
    tables = list(read_columns(path, "part", ["height", "masks.list.element.area"]))
    assert [len(table) for table in tables] == [3, 3, 3, 1]
    assert [n for table in tables for n in table.column("height").to_pylist()] == [*range(10)]
    assert [field.name for field in tables[0].schema.field("masks").type.value_type] == ["area"]


def test_metadata_says_how_it_was_made(path):
    assert read_metadata(path, "part")["amg.version"] == "1.2.3"
    path.write_bytes(b"PAR1")
    with pytest.raises(ShardError, match="part: cannot be read"):
        read_metadata(path, "part")
    with pytest.raises(ShardError, match="part: cannot be read"):
        list(read_rows(path, "part", [0]))
