import numpy as np
import pytest
import torch

from amg import ConfigError, GeneratorConfig, MaskGenerator
from amg.generate.probability import generate_soft
from amg.ops import rle

CONFIG = {"points_per_side": 6, "pred_iou_thresh": 0.3, "stability_score_thresh": 0.2}


@pytest.mark.parametrize("changes", [{}, {"mask_threshold": 0.5, "box_nms_thresh": 0.9}])
def test_they_are_the_generators_masks_in_its_order(nano, photos, changes):
    generator = MaskGenerator(nano, GeneratorConfig(**CONFIG, **changes))
    expected = generator.generate(photos["cat"]).masks
    found = []
    for answer in generate_soft(generator, photos["cat"]):
        assert not torch.is_inference_mode_enabled()  # what its caller does is the caller's own
        found.append(answer)
    assert len(found) == len(expected) >= 5
    for (probability, pixels), mask in zip(found, expected, strict=True):
        assert probability.shape == photos["cat"].shape[:2]
        # One pass draws the generator's masks, upsampling these: rounding may flip a pixel.
        assert (pixels != rle.decode(mask.rle)).sum() <= 1e-4 * pixels.size
        threshold = 1 / (1 + np.exp(-generator.config.mask_threshold))
        assert ((probability > threshold) != pixels).sum() <= 1e-4 * pixels.size
        assert 0 <= probability.min() < threshold < probability.max() <= 1


def test_without_survivors_there_are_none(nano, photos):
    config = GeneratorConfig(points_per_side=2, pred_iou_thresh=1.0)
    assert list(generate_soft(MaskGenerator(nano, config), photos["cat"])) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"crop_n_layers": 1},
        {"min_mask_region_area": 5},
        {"mask_nms_thresh": 0.8},
        {"min_area": 2},
        {"max_area": 99},
        {"max_area_fraction": 0.5},
    ],
)
def test_what_works_on_finished_masks_is_refused(nano, photos, changes):
    generator = MaskGenerator(nano, GeneratorConfig(**CONFIG, **changes))
    with pytest.raises(ConfigError, match=f"{next(iter(changes))}: must be"):
        next(generate_soft(generator, photos["cat"]))
