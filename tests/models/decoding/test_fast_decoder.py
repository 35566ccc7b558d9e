"""The fast decoder beside the plain modules: the same numbers by shorter ways."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from amg.models.decoding import fast_decoder
from amg.models.decoding.shared_pixels import can_share, share_pixels
from amg.models.modules.mask_decoder import MaskDecoder, compute_logits
from tests.models import oracles
from tests.models.modules.test_mask_decoder import CONFIGS, DIM, decoder_twins, prompts
from tests.models.parity import BOTH_DTYPES, assert_close, decode_all, randomise

FAST_CONFIGS = {name: config for name, config in CONFIGS.items() if name != "activations"}


@pytest.mark.parametrize("size_hw", [(6, 5), (1, 1), (19, 21)], ids=str)
@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
@pytest.mark.parametrize(("transformer", "decoder"), FAST_CONFIGS.values(), ids=FAST_CONFIGS)
def test_the_fast_way_gives_the_same(transformer, decoder, dtype, size_hw):
    ours, _ = decoder_twins(transformer, decoder, dtype)
    image, positions, sparse, dense = prompts(dtype, size_hw=size_hw)
    dense = dense[:1]  # one for all prompts
    plain = ours.attend(image, positions, sparse, dense)
    shared = share_pixels(ours, image, positions, dense)
    fast = fast_decoder.attend(ours, shared, sparse)
    assert_close(fast.mask_tokens, plain.mask_tokens)
    assert_close(fast.predicted_iou, plain.predicted_iou)
    weights = ours.hypernetwork_weights(plain.mask_tokens)
    logits = compute_logits(weights, ours.upscale(plain.pixels))
    assert_close(fast_decoder.compute_logits(ours, shared, fast.pixels, weights), logits)

    some = torch.tensor([True, False, False, True, True])
    for masks in (slice(1, None), slice(0, 1)):
        pixels = fast.select(some).pixels
        found = fast_decoder.compute_logits(ours, shared, pixels, weights[some][:, masks])
        assert_close(found, logits[some][:, masks])
    none = fast_decoder.compute_logits(ours, shared, fast.select(some & False).pixels, weights[:0])
    assert none.shape == (0, *logits.shape[1:])


def test_the_fast_way_upscales_in_tiles(monkeypatch):
    ours, _ = decoder_twins()
    image, positions, sparse, dense = prompts(torch.float32, size_hw=(9, 7))
    shared = share_pixels(ours, image, positions, dense[:1])
    fast = fast_decoder.attend(ours, shared, sparse)
    weights = ours.hypernetwork_weights(fast.mask_tokens)
    whole = fast_decoder.compute_logits(ours, shared, fast.pixels, weights)
    monkeypatch.setattr(fast_decoder, "_TILE_ELEMENTS", 10 * DIM)
    assert_close(fast_decoder.compute_logits(ours, shared, fast.pixels, weights), whole)


class Overriding(MaskDecoder):
    """Changes what the fast decoder does not ask for."""

    def upscale(self, pixels, high_res=()):
        return super().upscale(pixels, high_res) + 1


class Declaring(Overriding):
    has_fast_form = True


def test_a_decoder_that_inherits_is_decoded_plainly_until_it_declares_its_fast_form():
    transformer = oracles.our_sam().mask_decoder.transformer
    made = [
        kind(transformer_dim=oracles.CHANNELS, transformer=transformer)
        for kind in (MaskDecoder, Overriding, Declaring)
    ]
    assert [can_share(decoder) for decoder in made] == [True, False, True]


@pytest.mark.parametrize("activation", [nn.ReLU, partial(nn.GELU, approximate="tanh")])
def test_a_decoder_of_another_activation_is_decoded_plainly(activation):
    model = oracles.our_sam()
    dim, transformer = oracles.CHANNELS, model.mask_decoder.transformer
    model.mask_decoder = MaskDecoder(
        transformer_dim=dim, transformer=transformer, activation=activation
    )
    randomise(model)
    pixels, (frame,) = model.preprocess([np.zeros((64, 64, 3), np.uint8)])
    features, points = model.encode(pixels)[0], np.array([[9.0, 9.0], [30.0, 50.0]])
    found = []
    for model.plain in (False, True):
        found.append(decode_all(model, features, frame, points, 0.0))
    assert len(found[0].logits) == 6
    assert torch.equal(found[0].logits, found[1].logits)
