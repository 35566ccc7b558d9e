import pytest
import torch
from torch import nn
from transformers.models.sam2_video.configuration_sam2_video import Sam2VideoConfig
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoMemoryEncoder

from amg.models.modules.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder
from tests.models.parity import (
    BOTH_DTYPES,
    assert_close,
    from_transformers,
    layout,
    precision,
    random,
    twins,
)

pytest.importorskip("benchmarks.original_sam2")
from sam2.modeling import memory_encoder as original

from benchmarks.original_sam2 import instantiate, published_config
from tests.models.small_sam2 import DIM, MEMORY_DIM, instantiate_ours, small_config

DOWNSAMPLERS = {
    "four by two": {"kernel_size": 3, "stride": 2, "padding": 1},
    "two by four": {},
    "eight": {"kernel_size": 2, "stride": 2, "total_stride": 8},
    "activation": {"activation": nn.ReLU},
}
BLOCKS = {
    "published": {"layer_scale_init_value": 1e-6},
    "no scale": {"layer_scale_init_value": 0.0},
    "kernel": {"kernel_size": 3, "padding": 1},
    "dense": {"use_dwconv": False},
    "drop path": {"drop_path": 0.5},
}
PROJECTED = {"dim": DIM, "input_projection": True}


def frame(dtype, size_hw=(4, 5)):
    h, w = size_hw
    return random(2, DIM, h, w, dtype=dtype), 5 * random(2, 1, 16 * h, 16 * w, dtype=dtype, seed=2)


def assert_same_memory(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert_close(ours["vision_features"], theirs["vision_features"])
    for mine, expected in zip(ours["vision_pos_enc"], theirs["vision_pos_enc"], strict=True):
        assert_close(mine, expected)


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
@pytest.mark.parametrize("skip_mask_sigmoid", [False, True])
@pytest.mark.parametrize("memory_dim", [MEMORY_DIM, DIM])
@pytest.mark.parametrize("fuser", [{}, PROJECTED], ids=str)
def test_equals_the_original(fuser, memory_dim, skip_mask_sigmoid, dtype):
    config = small_config(memory_dim)["memory_encoder"]
    config["fuser"] |= fuser
    ours, theirs = twins(instantiate_ours(config), instantiate(config), dtype)
    assert layout(ours) == layout(theirs)
    given = *frame(dtype), skip_mask_sigmoid
    with precision(dtype):
        expected = theirs(*given)
    assert_same_memory(ours(*given), expected)


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
def test_equals_transformers(dtype):
    config = Sam2VideoConfig(
        memory_encoder_hidden_size=DIM,
        memory_encoder_output_channels=MEMORY_DIM,
        mask_downsampler_embed_dim=DIM,
        memory_fuser_embed_dim=DIM,
        memory_fuser_intermediate_dim=4 * DIM,
    )
    rename = from_transformers("memory_encoder", sam2=True)
    ours = MemoryEncoder(MEMORY_DIM, DIM)
    ours, theirs = twins(ours, Sam2VideoMemoryEncoder(config), dtype, rename)
    given = frame(dtype)
    features, positions = theirs(*given)
    expected = {"vision_features": features, "vision_pos_enc": [positions]}
    assert_same_memory(ours(*given, skip_mask_sigmoid=True), expected)


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
@pytest.mark.parametrize("changes", DOWNSAMPLERS.values(), ids=DOWNSAMPLERS)
def test_downsampler_equals_the_original(changes, dtype):
    ours, theirs = MaskDownSampler(DIM, **changes), original.MaskDownSampler(DIM, **changes)
    ours, theirs = twins(ours, theirs, dtype)
    masks = frame(dtype)[1]
    assert_close(ours(masks), theirs(masks))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
@pytest.mark.parametrize("changes", BLOCKS.values(), ids=BLOCKS)
def test_block_equals_the_original(changes, dtype, training):
    ours, theirs = twins(CXBlock(DIM, **changes), original.CXBlock(DIM, **changes), dtype)
    assert layout(ours) == layout(theirs)
    x = random(16, DIM, 4, 5, dtype=dtype)
    results = []
    for block in (ours, theirs):
        torch.manual_seed(3)  # for what is dropped in training
        results.append(block.train(training)(x))
    assert_close(*results)


def test_parts_are_the_published_ones_where_not_given():
    published = published_config("sam2.1_hiera_t")["memory_encoder"]
    ours, theirs = MemoryEncoder(64), instantiate_ours(published)
    ours.load_state_dict(theirs.state_dict())
    given = random(1, 256, 4, 4), random(1, 1, 64, 64, seed=2)
    assert_same_memory(ours(*given), theirs(*given))
    torch.testing.assert_close(ours.fuser.layers[0].gamma, torch.full((256,), 1e-6))


def test_full_width_equals_the_original():
    config = published_config("sam2.1_hiera_l")["memory_encoder"]
    ours, theirs = twins(MemoryEncoder(64), instantiate(config))
    given = random(1, 256, 8, 8), 5 * random(1, 1, 128, 128, seed=2)
    assert_same_memory(ours(*given), theirs(*given))


def test_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="total_stride=12 is no power of stride=4"):
        MaskDownSampler(DIM, total_stride=12)
    with pytest.raises(ValueError, match="input_projection=True needs dim"):
        Fuser(CXBlock(DIM), 1, input_projection=True)
