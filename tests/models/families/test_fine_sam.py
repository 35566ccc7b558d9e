"""SAM with finer features: the original with them added to what its upscaling gives."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from amg.models.families.build import build_nano
from amg.models.families.sizes import NANO
from amg.models.modules.fine_encoder import FineFeatures
from benchmarks.original import original_sam
from tests.models.parity import assert_close, random, randomise

IMGSZ = 96


@pytest.fixture(scope="module")
def model():
    return randomise(build_nano(replace(NANO, img_size=IMGSZ))).eval()


def candidates(model, features, **options):
    points_xy = np.random.default_rng(0).uniform(0, 60, (9, 2))
    (_, (frame,)) = model.preprocess([np.zeros((64, 96, 3), np.uint8)])
    (found,) = model.decode(features, frame, points_xy, 0.0, 64, **options)
    return found, points_xy


@torch.no_grad()
def test_features_are_a_quarter_and_an_eighth_and_images_do_not_touch(model):
    pixels = random(2, 3, IMGSZ, IMGSZ)
    features = model.encode(pixels)
    assert [maps.shape for maps in features[1]] == [(256, 6, 6), (32, 24, 24), (64, 12, 12)]
    (alone,) = model.encode(pixels[1:])
    for mine, expected in zip(features[1], alone, strict=True):
        assert_close(mine, expected)


@pytest.mark.parametrize("multimask_output", [True, False])
@torch.no_grad()
def test_the_fast_way_and_the_originals_modules_give_the_plain_way_s(
    model, multimask_output, monkeypatch
):
    pixels = random(1, 3, IMGSZ, IMGSZ)
    (features,) = model.encode(pixels)
    options = {"multimask_output": multimask_output}
    fast, points_xy = candidates(model, features, **options)
    monkeypatch.setattr(model, "plain", True)
    plain, _ = candidates(model, features, **options)
    assert_close(fast.logits, plain.logits)
    assert_close(fast.predicted_iou, plain.predicted_iou)

    theirs = original_sam(model)
    embedding = theirs.image_encoder(pixels)
    points = torch.from_numpy(points_xy)[:, None], torch.ones(len(points_xy), 1)
    sparse, dense = theirs.prompt_encoder(points, None, None)
    logits, scores = theirs.mask_decoder(
        embedding, theirs.prompt_encoder.get_dense_pe(), sparse, dense, multimask_output
    )
    assert_close(plain.logits, logits.flatten(0, 1))
    assert_close(plain.predicted_iou, scores.flatten())

    none = FineFeatures(features.embedding, *(torch.zeros_like(maps) for maps in features[1:]))
    blunt, _ = candidates(model, none, **options)
    assert (blunt.logits - plain.logits).abs().mean() > 0.01 * plain.logits.abs().mean()
