"""`use_checkpoint` of every image encoder: the same gradients, and blocks that run twice."""

import pytest
import torch
from torch import nn

from amg.models.modules.efficientnet_lite import EfficientNetLite
from amg.models.modules.fine_encoder import FineEncoder
from amg.models.modules.fine_tiny_vit import FineTinyViT
from amg.models.modules.hiera import Hiera
from amg.models.modules.image_encoder_vit import ImageEncoderViT
from amg.models.modules.tiny_vit import BasicLayer, ConvLayer, TinyViT
from tests.models.parity import random, randomise

TINY = {
    "img_size": 64,
    "num_classes": 0,
    "embed_dims": (8, 16, 24, 320),
    "depths": (1, 1, 1, 1),
    "num_heads": (1, 2, 3, 4),
    "drop_path_rate": 0.0,
}
ENCODERS = {
    "ViT": lambda flag: ImageEncoderViT(64, 16, 3, 24, 2, 2, out_chans=8, use_checkpoint=flag),
    "TinyViT": lambda flag: TinyViT(**TINY, use_checkpoint=flag),
    "FineTinyViT": lambda flag: FineTinyViT(**TINY, use_checkpoint=flag),
    "Hiera": lambda flag: Hiera(8, stages=(1, 1, 2, 1), use_checkpoint=flag),
    "FineEncoder": lambda flag: FineEncoder(64, 64, use_checkpoint=flag),
}


def blocks_of(encoder):
    if isinstance(encoder, TinyViT):
        layers = [m for m in encoder.modules() if isinstance(m, ConvLayer | BasicLayer)]
        return [block for layer in layers for block in layer.blocks]
    trunk = next((m for m in encoder.modules() if isinstance(m, EfficientNetLite)), encoder)
    return list(trunk.blocks)


def total(outputs):
    """One number of a tensor, or of some tensors."""
    maps = [outputs] if isinstance(outputs, torch.Tensor) else outputs
    return sum(x.square().mean() for x in maps)


@pytest.mark.parametrize("name", ENCODERS)
def test_activations_are_computed_again_and_no_gradient_changes(name):
    gradients = []
    for use_checkpoint in (False, True):
        encoder = randomise(ENCODERS[name](use_checkpoint)).train()
        freeze_norms(encoder)
        runs = []
        for block in blocks_of(encoder):
            # Computing again ends with the last activation that is needed, before a block does.
            block.register_forward_pre_hook(lambda block, *_, runs=runs: runs.append(block))
        with torch.enable_grad():
            total(encoder(random(1, 3, 64, 64))).backward()
        assert len(runs) == (1 + use_checkpoint) * len(blocks_of(encoder)) > 0
        gradients.append([p.grad for p in encoder.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 10
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)


def freeze_norms(encoder):
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
