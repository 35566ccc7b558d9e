import numpy as np
import pytest
import torch

from pipelines.train.prompts import (
    SceneStream,
    TrainingBatch,
    jittered_box,
    sample_points,
    stream_batches,
)


def batch_of(labels, points_xy):
    n_images = len(labels)
    return TrainingBatch(
        images=torch.zeros(n_images, 8, 8, 3, dtype=torch.uint8),
        labels=labels,
        points_xy=points_xy[:, :1],
        boxes_xyxy=torch.zeros(n_images, 1, 4),
        anchors_xy=points_xy[:, 1:],
        levels=torch.zeros(n_images, 1, dtype=torch.long),
    )


def test_targets_are_the_share_of_each_cell():
    labels = torch.zeros(1, 3, 8, 8, dtype=torch.int32)
    labels[0, 0, :, 6:] = 1
    batch = batch_of(labels, torch.tensor([[[7.0, 0.0], [0.0, 7.0]]]))
    targets = batch.targets().view(2, 3, 2, 2)
    assert targets[0, 0].tolist() == [[0, 0.5], [0, 0.5]]
    assert targets[1, 0].tolist() == [[1, 0.5], [1, 0.5]]
    assert (targets[:, 1:] == 1).all()


def test_boxes_are_about_their_regions():
    region = np.zeros((100, 100), bool)
    region[20:60, 30:90] = True
    rng = np.random.default_rng(0)
    boxes = np.array([jittered_box(rng, region) for _ in range(200)])
    off = np.abs(boxes - (30, 20, 90, 60))
    assert off.mean(0) == pytest.approx((4.7, 3.1, 4.7, 3.1), abs=0.8)
    assert (off <= (12, 8, 12, 8)).all()
    assert (boxes >= 0).all() and (boxes <= 100).all()


def test_points_fall_on_large_and_small_parts_but_not_on_specks():
    parts = np.zeros((64, 64), dtype=np.int32)
    parts[:5, :6] = 1
    parts[60, :3] = 2  # three pixels
    points = sample_points(np.random.default_rng(0), parts, 400).astype(int)
    hit = parts[points[:, 1], points[:, 0]]
    assert (hit == 2).sum() == 0
    assert 70 < (hit == 1).sum() < 130  # a quarter, though it is under a hundredth of the pixels


def test_streams_are_reproducible_and_differ_by_seed():
    def first(seed):
        return next(stream_batches(SceneStream(64, 4, 2, seed), 2, n_workers=0))

    one, again, other = first((1, 2)), first((1, 2)), first((1, 3))
    assert torch.equal(one.images, again.images)
    assert torch.equal(one.points_xy, again.points_xy)
    assert torch.equal(one.boxes_xyxy, again.boxes_xyxy)
    assert not torch.equal(one.images, other.images)
    assert one.images.shape == (2, 64, 64, 3)
    assert one.labels.shape == (2, 3, 64, 64)
    assert one.points_xy.shape == (2, 4, 2)
    assert one.boxes_xyxy.shape == (2, 2, 4)
    for image in range(2):
        for box, (x, y), level in zip(
            one.boxes_xyxy[image], one.anchors_xy[image].long(), one.levels[image], strict=True
        ):
            labels = one.labels[image, level]
            rows, columns = (labels == labels[y, x]).nonzero(as_tuple=True)
            middle = torch.tensor([columns.float().mean(), rows.float().mean()])
            assert (middle >= box[:2] - 3).all() and (middle <= box[2:] + 3).all()
