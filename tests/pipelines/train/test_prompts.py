import numpy as np
import torch

from pipelines.train.prompts import TrainingBatch, sample_points, stream_batches


def test_targets_are_the_share_of_each_cell():
    labels = torch.zeros(1, 3, 8, 8, dtype=torch.int32)
    labels[0, 0, :, 6:] = 1
    batch = TrainingBatch(
        images=torch.zeros(1, 8, 8, 3, dtype=torch.uint8),
        points_xy=torch.tensor([[[7.0, 0.0], [0.0, 7.0]]]),
        labels=labels,
    )
    targets = batch.targets().view(2, 3, 2, 2)
    assert targets[0, 0].tolist() == [[0, 0.5], [0, 0.5]]
    assert targets[1, 0].tolist() == [[1, 0.5], [1, 0.5]]
    assert (targets[:, 1:] == 1).all()


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
        return next(stream_batches(64, 4, 2, seed, n_workers=0))

    one, again, other = first((1, 2)), first((1, 2)), first((1, 3))
    assert torch.equal(one.images, again.images)
    assert torch.equal(one.points_xy, again.points_xy)
    assert not torch.equal(one.images, other.images)
    assert one.images.shape == (2, 64, 64, 3)
    assert one.labels.shape == (2, 3, 64, 64)
    assert one.points_xy.shape == (2, 4, 2)
