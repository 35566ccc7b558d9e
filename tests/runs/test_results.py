"""Reading what a run has committed: no worker is needed to write it."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from amg import ConfigError, Mask, RleError, RunError
from amg.errors import StorageError
from amg.ops import rle
from amg.records import Rle
from amg.runs.folder import Plan, Tally, commit_file, shard_file, to_json
from amg.runs.results import decode_mask, open_run
from amg.runs.schema import READABLE, SCHEMA, ImageRow
from amg.storage.stores import open_storage
from benchmarks.synthetic_run import commit_rows, publish_rows

PLAN = Plan("run", "f" * 64, {"model": {"name": "stub"}}, 5, 0, 2)
QUALITIES = ((0.9, 0.5), (0.5, 0.9), (0.7, 0.7))


def _row(i):
    bits = np.random.default_rng(i).random((3, 6, 9)) < 0.5
    masks = tuple(
        Mask(
            rle=encoded,
            area=rle.area(encoded),
            bbox_xywh=(1.0, 2.0, 3.0, 4.0),
            predicted_iou=iou,
            stability_score=stability,
            point_xy=(4.5, 2.5),
            crop_box_xywh=(0, 0, 9, 6),
            crop_layer=0,
            level=1,
        )
        for encoded, (iou, stability) in zip(rle.encode_masks(bits), QUALITIES, strict=True)
    )
    if i == 3:
        return ImageRow("3.jpg", "/3.jpg", "decode_error", "empty file (0 bytes)")
    return ImageRow(f"{i}.jpg", f"/{i}.jpg", "ok", None, 6, 9, "RGB", "ab" * 32, masks)


def _commit(storage, shard, attempt="good", plan=PLAN):
    commit_rows(storage, plan, shard, [_row(i) for i in plan.shard_rows(shard)], attempt)


@pytest.fixture(params=["local", "memory", "s3"])
def storage(request, tmp_path):
    """A finished run, with what lost attempts have left."""
    if request.param == "local":
        storage = open_storage(tmp_path / "a run")
    elif request.param == "memory":
        storage = open_storage(f"memory://{tmp_path.name}/run")
    else:
        storage = open_storage(f"s3://{request.getfixturevalue('s3')}/some/run")
    storage.write("plan.json", to_json(PLAN))
    for shard in (2, 0, 1):
        _commit(storage, shard)
    publish_rows(storage, 1, [_row(7), _row(8)], "lost")
    storage.write("data/part-00000.broken.parquet", b"PAR1")
    storage.write("commits/00001.json.tmp", b"{")
    return storage


@pytest.fixture
def local(tmp_path):
    storage = open_storage(tmp_path)
    storage.write("plan.json", to_json(PLAN))
    return storage


def _ids(rows):
    return [row.image_id for row in rows]


def test_only_committed_rows_are_read_in_the_order_of_the_plan(storage):
    run = open_run(storage.address)
    assert _ids(run.rows()) == [f"{i}.jpg" for i in range(5)]
    assert [len(row.masks) for row in run.rows()] == [3, 3, 3, 0, 3]
    assert run.to_table(["image_id"]).column(0).to_pylist() == [f"{i}.jpg" for i in range(5)]
    assert run.is_complete
    assert run.plan == PLAN
    assert (run.tally.images, run.tally.masks, run.tally.failed) == (5, 12, 1)


def test_rows_are_what_was_written(storage):
    (row, *_) = open_run(storage.address).rows()
    expected = _row(0)
    assert [mask.rle for mask in row.masks] == [mask.rle for mask in expected.masks]
    for mask in row.masks:
        assert decode_mask(mask).sum() == mask.area


def test_a_dataset_filters(storage):
    dataset = open_run(storage.address).dataset()
    assert dataset.schema.equals(SCHEMA)
    assert dataset.count_rows() == 5
    assert dataset.count_rows(filter=pc.field("status") == "ok") == 4
    failed = dataset.to_table(filter=pc.field("status") == "decode_error")
    assert failed.column("image_id").to_pylist() == ["3.jpg"]
    assert failed.column("error").to_pylist() == ["empty file (0 bytes)"]


@pytest.mark.parametrize(
    ("least", "kept"),
    [
        ({}, [0, 1, 2]),
        ({"min_predicted_iou": 0.6}, [0, 2]),
        ({"min_stability_score": 0.6}, [1, 2]),
        ({"min_predicted_iou": 0.6, "min_stability_score": 0.6}, [2]),
        ({"min_predicted_iou": 0.5, "min_stability_score": 0.5}, [0, 1, 2]),
        ({"min_predicted_iou": 0.95}, []),
        ({"min_stability_score": 0.0}, [0, 1, 2]),
    ],
)
def test_masks_are_filtered_and_rows_are_not(local, least, kept):
    for shard in range(3):
        _commit(local, shard)
    rows = list(open_run(local.root).rows(**least))
    assert _ids(rows) == [f"{i}.jpg" for i in range(5)]
    expected = [_row(0).masks[i].rle for i in kept]
    assert [mask.rle for mask in rows[0].masks] == expected
    assert rows[3].masks == ()


def test_a_mask_whose_parent_is_filtered_gets_the_next_ancestor(local):
    # Mask 1, of the lowest score, lies between 2 and 0.
    family = [replace(m, parent=p) for m, p in zip(_row(0).masks, (None, 0, 1), strict=True)]
    row = replace(_row(0), masks=tuple(family))
    commit_rows(local, PLAN, 0, [row, _row(1)])
    run = open_run(local.root)
    assert [mask.parent for mask in next(run.rows()).masks] == [None, 0, 1]
    some = next(run.rows(min_predicted_iou=0.6)).masks
    assert [mask.parent for mask in some] == [None, 0]
    orphan = next(run.rows(min_stability_score=0.8)).masks
    assert [mask.parent for mask in orphan] == [None]


@pytest.mark.parametrize("schema", READABLE[1:], ids=["version 2", "version 1"])
def test_shards_of_older_versions_are_read_beside_others(schema, local):
    for shard in range(3):
        _commit(local, shard)
    path = local.root / shard_file(1, "good")
    old = pa.Table.from_pylist(pq.read_table(path).to_pylist(), schema=schema)
    pq.write_table(old, path)
    run = open_run(local.root)
    assert _ids(run.rows()) == [f"{i}.jpg" for i in range(5)]
    assert run.dataset().to_table().column("candidates").null_count == 5
    assert run.mask_table(["category"]).column("category").null_count == run.tally.masks


def test_a_run_that_goes_on_gives_what_is_there(local):
    run = open_run(local.root)
    assert (list(run.rows()), run.tally, run.is_complete) == ([], Tally(), False)
    _commit(local, 1)
    assert list(run.rows()) == [], "as it was when it was opened"
    run = open_run(str(local.root))
    assert _ids(run.rows()) == ["2.jpg", "3.jpg"]
    assert not run.is_complete


def test_a_run_without_commits_is_an_empty_table(local):
    run = open_run(local.root)
    assert run.to_table(["image_id"]).num_rows == 0
    assert run.dataset().schema.equals(SCHEMA)


def test_a_shard_that_was_done_again_counts_once(local):
    _commit(local, 0, "first")
    _commit(local, 0, "second")
    run = open_run(local.root)
    assert _ids(run.rows()) == ["0.jpg", "1.jpg"]
    assert run.commits[0].attempt == "second"


def test_folders_without_a_run_and_damaged_ones_are_named(tmp_path):
    with pytest.raises(RunError, match=f"{tmp_path}/ho holds no run"):
        open_run(tmp_path / "ho")
    storage = open_storage(tmp_path / "hey")
    storage.write("plan.json", b"{")
    with pytest.raises(RunError, match=r"hey/plan\.json: no valid plan"):
        open_run(tmp_path / "hey")
    assert not (tmp_path / "ho").exists()


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'{"shard": 1}', b"\xff"])
def test_damaged_commits_are_named(local, data):
    local.write(commit_file(1), data)
    with pytest.raises(RunError, match=r"commits/00001\.json: no valid commit"):
        open_run(local.root)


def test_commits_of_another_plan_are_named(local):
    _commit(local, 1, plan=replace(PLAN, fingerprint="e" * 64))
    with pytest.raises(RunError, match=r"commits/00001\.json belongs to another plan"):
        open_run(local.root)


def test_a_file_that_is_gone_is_named(local):
    _commit(local, 0)
    local.delete([shard_file(0, "good")])
    with pytest.raises(StorageError, match=r"data/part-00000\.good\.parquet"):
        list(open_run(local.root).rows())


def test_any_reader_of_parquet_reads_a_shard(local):
    _commit(local, 0)
    table = pq.read_table(local.root / shard_file(0, "good"))
    mask = table.to_pylist()[0]["masks"][0]
    assert Rle((6, 9), mask["counts"]) == _row(0).masks[0].rle


def test_a_mask_that_is_not_valid_is_refused():
    (mask, *_) = _row(0).masks
    with pytest.raises(RleError):
        decode_mask(Mask(**{**_values(mask), "rle": Rle((6, 9), "0")}))


def _values(mask):
    return {name: getattr(mask, name) for name in Mask.__dataclass_fields__}


def test_one_row_a_mask(storage):
    run = open_run(storage.address)
    table = run.mask_table()
    assert table.column("image_id").to_pylist() == [f"{i}.jpg" for i in (0, 1, 2, 4) for _ in "abc"]
    assert table.column("mask_id").to_pylist() == [0, 1, 2] * 4
    masks = [mask for row in run.rows() for mask in row.masks]
    assert table.column("counts").to_pylist() == [mask.rle.counts for mask in masks]
    assert table.column("area").to_pylist() == [mask.area for mask in masks]
    assert set(table.column("height").to_pylist()) == {6}
    few = run.mask_table(["stability_score"])
    assert few.column_names == ["image_id", "height", "width", "mask_id", "stability_score"]
    with pytest.raises(ConfigError, match="masks have no 'colour'; there are counts, area"):
        run.mask_table(["colour"])


def test_one_row_a_mask_of_no_rows(local):
    assert open_run(local.root).mask_table().num_rows == 0


def test_files_are_the_committed_ones(storage):
    files = open_run(storage.address).files
    assert [name.rpartition("/")[2] for name in files] == [
        f"part-{i:05d}.good.parquet" for i in range(3)
    ]
    assert all(name.startswith(storage.address) for name in files)


def test_no_demand_keeps_masks_whatever_their_scores(local):
    (good, *_) = _row(0).masks
    odd = [replace(good, predicted_iou=-0.25), replace(good, stability_score=float("nan"))]
    row = replace(_row(0), masks=(good, *odd))
    storage, plan = local, replace(PLAN, n_images=1)
    storage.write("plan.json", to_json(plan))
    commit_rows(storage, plan, 0, [row])
    run = open_run(local.root)
    assert [len(row.masks) for row in run.rows()] == [3]
    assert [len(row.masks) for row in run.rows(min_predicted_iou=0)] == [2]
    assert [len(row.masks) for row in run.rows(min_stability_score=0)] == [2]
