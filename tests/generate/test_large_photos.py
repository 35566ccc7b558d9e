"""The generator against the original where that takes minutes or gigabytes."""

import numpy as np
import pytest

from amg import GeneratorConfig, MaskGenerator
from amg.evaluate.parity import compare_annotations
from benchmarks.original import original_generator


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Not here: large arrays gain from all of them."""


def _compare(model, config, image):
    generator = MaskGenerator(model, config)
    reference = original_generator(model, generator.config).generate(image)
    return compare_annotations(reference, generator.generate(image).to_annotations())


@pytest.mark.slow
@pytest.mark.parametrize("photo", ["astronaut", "cat", "coffee", "rocket", "camera", "coins"])
def test_photos_with_the_models_defaults_are_the_originals(nano, photos, photo):
    report = _compare(nano, GeneratorConfig(), photos[photo])
    assert report.exact, report
    assert report.n_ours >= 3


@pytest.mark.slow
def test_two_crop_layers_are_the_originals(nano, photos):
    config = GeneratorConfig(
        points_per_side=16,
        crop_n_layers=2,
        crop_n_points_downscale_factor=2,
        pred_iou_thresh=0.2,
        stability_score_thresh=0.2,
        min_mask_region_area=100,
    )
    report = _compare(nano, config, photos["coffee"])
    assert report.exact, report
    assert report.n_ours >= 20


@pytest.mark.large
def test_24_megapixels_are_the_originals(nano, photos):
    config = GeneratorConfig(points_per_side=6, pred_iou_thresh=0.2, stability_score_thresh=0.2)
    tiles = np.tile(photos["astronaut"], (8, 12, 1))[:4000, :6000]
    report = _compare(nano, config, tiles)
    assert report.exact, report
    assert report.n_ours >= 3
