"""EfficientNet-Lite0 beside timm's."""

import timm
import torch

from amg.models.modules.efficientnet_lite import TRUNK_WIDTHS, EfficientNetLite
from tests.models.parity import assert_close, random, randomise


@torch.no_grad()
def test_maps_are_those_of_timm_at_even_and_odd_sizes():
    model = randomise(EfficientNetLite()).double().eval()
    theirs = timm.create_model("tf_efficientnet_lite0", features_only=True).double().eval()
    assert list(theirs.state_dict()) == list(model.state_dict())
    theirs.load_state_dict(model.state_dict())
    for size_hw in ((64, 96), (49, 75)):
        pixels = random(2, 3, *size_hw).double()
        _, *expected = theirs(pixels)
        maps = model(pixels)
        assert tuple(m.shape[1] for m in maps) == TRUNK_WIDTHS
        for mine, its in zip(maps, expected, strict=True):
            assert_close(mine, its)


@torch.enable_grad()
def test_statistics_of_norms_stay_in_training():
    model = EfficientNetLite().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    maps = model(random(1, 3, 64, 64))
    sum(m.sum() for m in maps).backward()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.bn1.weight.grad.abs().sum() > 0
