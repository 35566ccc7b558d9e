"""The SamModel made from ours computes the same, and its pipeline finds about the same masks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from amg import GeneratorConfig, MaskGenerator
from amg.errors import ConfigError
from amg.evaluate.parity import count_found
from amg.models.families.build import build_nano, build_tiny_sam
from amg.models.families.sizes import MOBILE_SAM, NANO
from benchmarks.transformers_pipeline import pipeline_generator, transformers_sam
from tests.models.oracles import SIZE_PX, our_sam
from tests.models.parity import assert_close, random, randomise

POINTS = torch.tensor([[[[10.0, 20.0]], [[50.0, 7.0]], [[33.0, 60.0]]]])  # (1, N, 1, 2)


def small_tiny_vit_sam():
    model = build_tiny_sam(MOBILE_SAM)
    model.set_imgsz(SIZE_PX)
    return model.eval()


def small_fine_sam():
    return build_nano(replace(NANO, img_size=SIZE_PX)).eval()


@pytest.mark.parametrize("make", [our_sam, small_tiny_vit_sam, small_fine_sam])
@torch.no_grad()
def test_same_embeddings_logits_and_scores(make):
    ours = randomise(make())
    theirs = transformers_sam(ours)
    pixels = random(1, 3, SIZE_PX, SIZE_PX)
    decoder = ours.image_decoder(ours.encode(pixels)[0])
    embedding = theirs.get_image_embeddings(pixels)

    points = POINTS[0], torch.ones(POINTS.shape[1], 1)
    sparse, _ = ours.prompt_encoder(points, None, None)
    found = decoder.candidates(sparse, None, 0.0, True)
    output = theirs(input_points=POINTS, image_embeddings=embedding)
    assert_close(found.logits, output.pred_masks[0].flatten(0, 1))
    assert_close(found.predicted_iou, output.iou_scores[0].flatten())


def test_nothing_is_copied():
    ours = our_sam()
    theirs = transformers_sam(ours)
    held = {tensor.data_ptr() for tensor in ours.state_dict().values()}
    assert {tensor.data_ptr() for tensor in theirs.state_dict().values()} == held


def test_the_pipeline_finds_most_of_our_masks_on_a_photo(nano, photos):
    config = GeneratorConfig(points_per_side=7, pred_iou_thresh=0.2, stability_score_thresh=0.2)
    photo = np.asarray(Image.fromarray(photos["coffee"]).resize((300, 200)))
    ours = MaskGenerator(nano, config).generate(photo).to_annotations()
    theirs = pipeline_generator(nano, config)(photo)
    assert len(ours) >= 10
    assert count_found(ours, theirs) >= 0.9 * len(ours)
    assert count_found(theirs, ours) >= 0.9 * len(theirs)


@pytest.mark.parametrize(
    "values",
    [
        {"point_grids": [[(0.5, 0.5)]]},
        {"crop_n_layers": 1, "crop_n_points_downscale_factor": 2},
        {"min_mask_region_area": 10},
    ],
)
def test_parameters_that_the_pipeline_has_not_are_refused(nano, values):
    with pytest.raises(ConfigError, match="pipeline"):
        pipeline_generator(nano, GeneratorConfig(**values))
