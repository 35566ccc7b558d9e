"""The built-in model as it is shipped: nothing has damaged it, or the way to its masks."""

import numpy as np
import pytest

from amg import GeneratorConfig, MaskGenerator
from amg.evaluate.parity import read_annotations
from amg.evaluate.runs import compare_images
from tests.models.nano_masks import PHOTOS, read_kept, segment


def _share_found(kept, ours):
    """The share of masks, ours or kept, that have one like them (IoU 0.9) on the other side."""
    there, back = (compare_images("", *pair).best_ious for pair in ((kept, ours), (ours, kept)))
    return float(np.mean(np.concatenate([there, back]) >= 0.9))


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name == "coffee" else ()) for name in PHOTOS],
)
def test_photos_have_the_masks_that_they_had(nano, photos, name):
    """Other processors round otherwise, and move a mask over a threshold now and then."""
    kept = read_kept()[name]
    ours = read_annotations(segment(nano, photos[name]))
    assert len(kept) >= 5
    assert _share_found(kept, ours) >= 0.95
    scores = [np.sort([mask.predicted_iou for mask in masks])[-5:] for masks in (kept, ours)]
    np.testing.assert_allclose(*scores, atol=0.01)


@pytest.fixture(scope="module")
def few_points(nano):
    """The masks that the model gives with a coarser grid."""
    generator = MaskGenerator(nano, GeneratorConfig(points_per_side=8))
    return lambda photo: generator.generate(np.ascontiguousarray(photo)).masks


@pytest.fixture(scope="module")
def undamaged(few_points, photos):
    return few_points(photos["astronaut"])


@pytest.mark.parametrize(
    "damage",
    [
        lambda photo: photo[..., ::-1],
        lambda photo: photo // 2,
        lambda photo: np.roll(photo, 8, axis=1),
    ],
    ids=["blue first", "darker", "moved"],
)
def test_damage_would_be_seen(few_points, undamaged, photos, damage):
    assert len(undamaged) >= 5
    assert _share_found(undamaged, few_points(damage(photos["astronaut"]))) < 0.8
