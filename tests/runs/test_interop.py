"""Results in other libraries' hands: each reads them with its own code."""

import duckdb
import numpy as np
import pytest
from pycocotools import mask as coco

from amg import ImageError, MaskGenerator, open_run, to_supervision
from amg.config import GeneratorConfig
from tests.pipelines.helpers import make_folder, make_run

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def run(forked_workers, tmp_path_factory):
    """Six images of which one cannot be read."""
    out = tmp_path_factory.mktemp("interop")
    folder = make_folder(out / "photos", 6)
    (folder / "003.png").write_bytes(b"no image")
    make_run(folder, out / "masks", "run.images_per_shard=4").execute()
    return open_run(out / "masks")


def test_supervision_has_the_masks_and_their_scores(run):
    pytest.importorskip("supervision")
    row = run.row("001.png")
    detections = to_supervision(row)
    (mask,) = row.masks
    assert len(detections) == 1
    counts = {"size": list(mask.rle.size_hw), "counts": mask.rle.counts}
    np.testing.assert_array_equal(detections.mask[0], coco.decode(counts).astype(bool))
    assert detections.confidence.tolist() == [mask.predicted_iou]
    assert detections.data["stability_score"].tolist() == [mask.stability_score]
    assert len(detections[detections.confidence > 0.6]) == 0


def test_supervision_has_fresh_masks_too(nano):
    pytest.importorskip("supervision")
    image = np.zeros((64, 96, 3), dtype=np.uint8)
    image[16:48, 20:60] = 255
    config = GeneratorConfig(points_per_side=4, pred_iou_thresh=0, stability_score_thresh=0)
    result = MaskGenerator(nano, config).generate(image)
    detections = to_supervision(result)
    assert len(detections) == len(result.masks) > 0
    assert detections.mask.sum(axis=(1, 2)).tolist() == [mask.area for mask in result.masks]


def test_supervision_of_a_failed_image_is_an_error(run):
    pytest.importorskip("supervision")
    with pytest.raises(ImageError, match=r"003\.png: it has no masks"):
        to_supervision(run.row("003.png"))


def test_hugging_face_datasets_load_the_committed_shards(run, tmp_path):
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(
        "parquet", data_files=run.files, split="train", cache_dir=str(tmp_path)
    )
    assert loaded["image_id"][:] == [row.image_id for row in run.rows()]
    assert loaded[0]["masks"][0]["counts"] == run.row("000.png").masks[0].rle.counts
    good = loaded.filter(lambda row: row["status"] == "ok")
    shown = good.rename_column("uri", "image").cast_column("image", datasets.Image())
    for row in shown:
        expected = run.image(run.row(row["image_id"]))
        np.testing.assert_array_equal(np.asarray(row["image"].convert("RGB")), expected)


def test_duckdb_and_pandas_read_masks_and_rows(run):
    masks = run.mask_table()
    area = sum(mask.area for row in run.rows() for mask in row.masks)
    database = duckdb.connect()
    database.register("masks", masks)
    database.register("images", run.dataset())
    assert database.sql("SELECT sum(area) FROM masks").fetchall() == [(area,)]
    query = "SELECT sum(mask.area) FROM (SELECT unnest(masks) AS mask FROM images)"
    assert database.sql(query).fetchall() == [(area,)]
    frame = masks.to_pandas()
    assert frame.groupby("image_id").area.sum().sum() == area
    assert frame.counts[0] == run.row("000.png").masks[0].rle.counts
