"""The encoder on a pretrained trunk: sizes, and what depends on what."""

import pytest
import torch

from amg.models.modules.fine_encoder import FineEncoder
from tests.models.parity import random, randomise


@pytest.mark.parametrize("side", [96, 112])  # 112 / 32 is no whole number
@torch.no_grad()
def test_features_are_a_quarter_an_eighth_and_a_sixteenth(side):
    encoder = FineEncoder(side, 64).eval()
    encoder.set_imgsz((side, side))
    features = encoder(random(2, 3, side, side))
    cells = side // 16
    assert features.embedding.shape == (2, 64, cells, cells)
    assert features.at_quarter.shape == (2, 8, 4 * cells, 4 * cells)
    assert features.at_eighth.shape == (2, 16, 2 * cells, 2 * cells)


def test_sides_are_multiples_of_16():
    with pytest.raises(ValueError, match="100"):
        FineEncoder(96, 64).set_imgsz((100, 100))


@torch.no_grad()
def test_every_place_sees_the_whole_image_but_fine_features_mostly_their_own():
    encoder = randomise(FineEncoder(128, 64)).eval()
    pixels = random(1, 3, 128, 128)
    changed = pixels.clone()
    changed[..., 96:, 96:] += 1
    before, after = encoder(pixels), encoder(changed)
    difference = (before.embedding - after.embedding).abs().amax(1)[0]
    assert difference[0, 0] > 0
    fine = (before.at_quarter - after.at_quarter).abs().amax(1)[0]
    assert fine[28, 28] > 3 * fine[2, 2]
