from types import SimpleNamespace

import pytest
import torch
from transformers import Sam2HieraDetConfig, Sam2VisionConfig
from transformers.models.sam2.modeling_sam2 import Sam2VisionModel

from amg.models.modules.fpn_neck import FpnNeck, ImageEncoder
from amg.models.modules.hiera import Hiera
from tests.models.parity import (
    BOTH_DTYPES,
    assert_close,
    from_transformers,
    layout,
    oracle_in_float64,
    precision,
    random,
    randomise,
    twins,
)

D_MODEL = 16
SMALL = {
    "embed_dim": 8,
    "num_heads": 1,
    "stages": (1, 2, 3, 1),
    "global_att_blocks": (4,),
    "window_pos_embed_bkg_spatial_size": (5, 5),
    "window_spec": (8, 4, 6, 3),
}
TRUNKS = {
    "as published": {},
    "two heads": {"embed_dim": 16, "num_heads": 2},
    "every block global that may be": {"global_att_blocks": (0, 2, 4, 5)},
    "no block global": {"global_att_blocks": ()},
    "pooling in one stage": {"q_pool": 1},
    "no pooling": {"q_pool": 0},
    "other factors": {"dim_mul": 1.5, "head_mul": 1.0},
    "oblong background": {"window_pos_embed_bkg_spatial_size": (3, 7)},
    "last map only": {"return_interm_layers": False},
}
NECKS = {
    "as published": {"fpn_top_down_levels": [2, 3], "fpn_interp_model": "nearest"},
    "all levels": {"fpn_interp_model": "nearest"},
    "bilinear": {},
    "mean": {"fuse_type": "avg"},
    "level 1 only": {"fpn_top_down_levels": [1]},
    "kernel 3": {"kernel_size": 3, "padding": 1},
}


@pytest.fixture
def original():
    pytest.importorskip("benchmarks.original_sam2")
    from sam2.modeling import position_encoding
    from sam2.modeling.backbones import hieradet, image_encoder

    return SimpleNamespace(
        Hiera=hieradet.Hiera,
        FpnNeck=image_encoder.FpnNeck,
        ImageEncoder=image_encoder.ImageEncoder,
        Positions=position_encoding.PositionEmbeddingSine,
    )


def assert_all_close(maps, expected):
    for mine, their in zip(maps, expected, strict=True):
        assert_close(mine, their)


def neck_twins(original, dtype, **changes):
    channels = [40, 24, 12, 8]
    ours = FpnNeck(D_MODEL, channels, **changes)
    theirs = original.FpnNeck(original.Positions(D_MODEL), D_MODEL, channels, **changes)
    return twins(ours, theirs, dtype)


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
@pytest.mark.parametrize("changes", TRUNKS.values(), ids=TRUNKS)
def test_trunk_equals_the_original(original, changes, dtype):
    ours, theirs = twins(Hiera(**SMALL | changes), original.Hiera(**SMALL | changes), dtype)
    assert layout(ours) == layout(theirs)
    assert ours.channel_list == theirs.channel_list
    x = random(2, 3, 64, 96, dtype=dtype)
    assert_all_close(ours(x), theirs(x))


@pytest.mark.parametrize("size", [(32, 32), (96, 32), (160, 160)])
def test_trunk_equals_the_original_at_other_sizes(original, size):
    """Windows of 4 and 6 cells do not fill these maps: they are padded."""
    ours, theirs = twins(Hiera(**SMALL), original.Hiera(**SMALL), torch.float64)
    x = random(1, 3, *size, dtype=torch.float64)
    assert_all_close(ours(x), theirs(x))


@pytest.mark.parametrize("changes", NECKS.values(), ids=NECKS)
def test_neck_equals_the_original(original, changes):
    ours, theirs = neck_twins(original, torch.float64, **changes)
    assert layout(ours) == layout(theirs)
    sizes = [(8, 32, 24), (12, 16, 12), (24, 8, 6), (40, 4, 3)]
    maps = [random(2, *size, dtype=torch.float64, seed=i) for i, size in enumerate(sizes)]
    with oracle_in_float64():  # it rounds the coarse maps to float32
        expected = theirs(maps)
    for mine, their in zip(ours(maps), expected, strict=True):
        assert_all_close(mine, their)


@pytest.mark.parametrize("scalp", [0, 1, 2])
def test_encoder_equals_the_original(original, scalp):
    channels = [64, 32, 16, 8]
    neck = NECKS["as published"]
    ours = ImageEncoder(Hiera(**SMALL), FpnNeck(D_MODEL, channels, **neck), scalp)
    theirs = original.ImageEncoder(
        original.Hiera(**SMALL),
        original.FpnNeck(original.Positions(D_MODEL), D_MODEL, channels, **neck),
        scalp,
    )
    twins(ours, theirs, torch.float64)
    assert layout(ours) == layout(theirs)
    x = random(2, 3, 64, 64, dtype=torch.float64)
    with oracle_in_float64():
        expected = theirs(x)
    maps = ours(x)
    assert len(maps) == 4 - scalp
    assert_all_close(maps, expected["backbone_fpn"])
    assert_all_close(ours.neck.positions(maps), expected["vision_pos_enc"])


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
def test_encoder_equals_transformers(dtype):
    backbone = Sam2HieraDetConfig(
        hidden_size=8,
        num_attention_heads=1,
        image_size=[64, 64],
        blocks_per_stage=[1, 2, 3, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[8, 4, 6, 3],
        global_attention_blocks=[4],
        window_positional_embedding_background_size=[5, 5],
    )
    config = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[64, 32, 16, 8],
        fpn_hidden_size=D_MODEL,
        attn_implementation="sdpa",  # the eager one takes the softmax in float32
    )
    ours = ImageEncoder(
        Hiera(**SMALL), FpnNeck(D_MODEL, [64, 32, 16, 8], **NECKS["as published"]), scalp=1
    )
    theirs = Sam2VisionModel(config)
    twins(ours, theirs, dtype, from_transformers("vision_encoder"))
    x = random(2, 3, 64, 64, dtype=dtype)
    with precision(dtype):
        expected = theirs(x)
    maps = ours(x)
    assert_all_close(maps, expected.fpn_hidden_states)
    assert_all_close(ours.neck.positions(maps), expected.fpn_position_encoding)


def test_shapes_of_the_specification():
    trunk = Hiera(embed_dim=8, stages=(1, 1, 1, 1), global_att_blocks=())
    maps = trunk(random(1, 3, 224, 224))
    assert [tuple(m.shape) for m in maps] == [
        (1, 8, 56, 56),
        (1, 16, 28, 28),
        (1, 32, 14, 14),
        (1, 64, 7, 7),
    ]
    features, positions = FpnNeck(256, trunk.channel_list)(maps)
    assert len(features) == len(positions) == 4
    assert all(x.shape == p.shape for x, p in zip(features, positions, strict=True))


def test_stochastic_depth_acts_in_training_alone():
    trunk = randomise(Hiera(**SMALL, drop_path_rate=0.9))
    x = random(1, 3, 64, 64)
    assert torch.equal(trunk.eval()(x)[-1], trunk(x)[-1])
    torch.manual_seed(0)
    assert not torch.equal(trunk.train()(x)[-1], trunk(x)[-1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window_spec": (8, 4, 6)}, "one for each of 4 stages"),
        ({"q_pool": 4}, "from 0 to 3"),
        ({"window_spec": (7, 4, 6, 3)}, "windows of 7 cannot be pooled"),
        ({"q_stride": (2, 1)}, r"cannot be pooled by \(2, 1\)"),
    ],
)
def test_impossible_sizes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Hiera(**SMALL | changes)


def test_a_neck_for_other_channels_is_refused():
    with pytest.raises(ValueError, match="the neck is for channels"):
        ImageEncoder(Hiera(**SMALL), FpnNeck(D_MODEL, [8, 16, 32, 64]))


def test_an_unknown_fuse_type_is_refused():
    with pytest.raises(ValueError, match="'max' is neither"):
        FpnNeck(D_MODEL, [8], fuse_type="max")
