"""The published models at full width and 1024 pixels, on random weights: minutes and gigabytes."""

import pytest
import segment_anything
import torch
from segment_anything.modeling import ImageEncoderViT as OriginalEncoder
from timm.models import tiny_vit as timm_tiny_vit

from amg.models.zoo.load import build_model
from amg.models.zoo.registry import MODELS
from tests.models.parity import assert_close, from_timm, random, randomise

pytestmark = pytest.mark.large

IMGSZ, N_PROMPTS = 1024, 8


def on_meta(build):
    """A model without values: the oracle's are filled in, and ours are the oracle's tensors."""
    with torch.device("meta"):
        return build().eval()


def filled(module, seed=0):
    return randomise(module.to_empty(device="cpu"), seed)


def with_weights(module, state):
    module.load_state_dict(state, strict=True, assign=True)
    return module


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_sam_equals_the_original(name):
    theirs = filled(on_meta(segment_anything.sam_model_registry[name]))
    ours = with_weights(on_meta(lambda: build_model(MODELS[f"sam_{name}"])), theirs.state_dict())
    x = random(1, 3, IMGSZ, IMGSZ)
    features = theirs.image_encoder(x)
    assert_close(ours.image_encoder(x), features)
    assert_decoders_agree(ours, theirs, features)


def test_mobile_sam_equals_timm_and_the_original():
    trunk = filled(on_meta(lambda: timm_tiny_vit.tiny_vit_5m_224(num_classes=1000)))
    for module in trunk.modules():
        if isinstance(module, timm_tiny_vit.Attention):
            module.init_non_persistent_buffers()
    trunk.stages[3].downsample.conv2.conv.stride = (1, 1)  # MobileSAM's one change
    neck = filled(on_meta(lambda: OriginalEncoder(embed_dim=320, depth=0).neck), seed=1)
    theirs = filled(on_meta(segment_anything.sam_model_registry["vit_b"]), seed=2)

    ours = build_model(MODELS["mobile_sam"]).eval()
    encoder_state = from_timm(trunk.state_dict())
    encoder_state |= {f"neck.{name}": tensor for name, tensor in neck.state_dict().items()}
    with_weights(ours.image_encoder, encoder_state)
    with_weights(ours.prompt_encoder, theirs.prompt_encoder.state_dict())
    with_weights(ours.mask_decoder, theirs.mask_decoder.state_dict())

    x = random(1, 3, IMGSZ, IMGSZ)
    features = neck(trunk.forward_features(x))
    assert features.shape == (1, 256, 64, 64)
    assert_close(ours.image_encoder(x), features)
    assert_decoders_agree(ours, theirs, features)


def assert_decoders_agree(ours, theirs, features):
    """One positive point a prompt."""
    coords = torch.rand(N_PROMPTS, 1, 2, generator=torch.Generator().manual_seed(0)) * IMGSZ
    points = (coords, torch.ones(N_PROMPTS, 1))
    sparse, dense = theirs.prompt_encoder(points, None, None)
    assert_close(ours.prompt_encoder(points, None, None)[0], sparse)
    positions = theirs.prompt_encoder.get_dense_pe()
    assert_close(ours.prompt_encoder.get_dense_pe(), positions)
    expected = theirs.mask_decoder(features, positions, sparse, dense, True)
    shared = ours.prompt_encoder.no_mask_dense()
    for mine, their in zip(
        ours.mask_decoder(features, positions, sparse, shared, True), expected, strict=True
    ):
        assert_close(mine, their)


@pytest.mark.parametrize("name", [n for n, s in MODELS.items() if s.architecture == "sam2"])
def test_sam2_equals_the_original(name):
    original_sam2 = pytest.importorskip("benchmarks.original_sam2")
    theirs = randomise(original_sam2.instantiate(original_sam2.published_config(name)).eval())
    ours = with_weights(on_meta(lambda: build_model(MODELS[name])), theirs.state_dict())
    ours.pixel_mean, ours.pixel_std = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    x = random(1, 3, IMGSZ, IMGSZ)
    encoded, expected = ours.forward_image(x), theirs.forward_image(x)
    for mine, their in zip(encoded["backbone_fpn"], expected["backbone_fpn"], strict=True):
        assert_close(mine, their)
    for mine, their in zip(encoded["vision_pos_enc"], expected["vision_pos_enc"], strict=True):
        assert_close(mine, their)

    *high_res, features = expected["backbone_fpn"]
    coords = torch.rand(N_PROMPTS, 1, 2, generator=torch.Generator().manual_seed(0)) * IMGSZ
    points = (coords, torch.ones(N_PROMPTS, 1))
    sparse, dense = theirs.sam_prompt_encoder(points, None, None)
    assert_close(ours.sam_prompt_encoder(points, None, None)[0], sparse)
    positions = theirs.sam_prompt_encoder.get_dense_pe()
    for multimask_output in (True, False):
        given = features, positions, sparse, dense, multimask_output
        masks = ours.sam_mask_decoder(*given, high_res)
        for mine, their in zip(masks, theirs.sam_mask_decoder(*given, True, high_res), strict=True):
            assert_close(mine, their)
