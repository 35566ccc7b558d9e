import pytest
import torch
from segment_anything.modeling import ImageEncoderViT as OriginalEncoder
from timm.models import tiny_vit as timm_tiny_vit
from torch import nn

from amg.models.families.build import build_tiny_sam
from amg.models.families.sizes import MOBILE_SAM
from amg.models.modules.hiera import Hiera
from amg.models.modules.layers import DropPath
from amg.models.modules.tiny_vit import (
    Attention,
    BasicLayer,
    Conv2d_BN,
    ConvLayer,
    MBConv,
    Mlp,
    PatchMerging,
    TinyViT,
    TinyViTBlock,
)
from amg.models.modules.windows import window_partition
from tests.models.parity import (
    BOTH_DTYPES,
    assert_close,
    from_timm,
    layout,
    random,
    randomise,
    twins,
)

SMALL = {
    "embed_dims": (8, 16, 24, 32),
    "depths": (2, 1, 2, 1),
    "num_heads": (1, 2, 3, 4),
    "window_sizes": (3, 3, 4, 2),  # at 64 px the grids are 8 (padded to 9), 4 (filled) and 2
    "num_classes": 5,
}
CONFIGS = {
    "stride 2 everywhere": (64, {}),
    "sizes that round up": (80, {}),  # grids 20, 10, 5, 3
    "no stride before width 320": (64, {"embed_dims": (8, 16, 24, 320)}),
    "no stride before width 448": (32, {"embed_dims": (8, 16, 24, 448)}),
    "no stride before width 576": (32, {"embed_dims": (8, 16, 24, 576)}),
    "no stride in the middle": (32, {"embed_dims": (8, 16, 320, 32), "num_heads": (1, 2, 10, 4)}),
    "other ratios": (64, {"mlp_ratio": 2.5, "mbconv_expand_ratio": 3.0, "local_conv_size": 5}),
    "one channel": (64, {"in_chans": 1}),
}


def original_trunk(config):
    """timm's TinyVit, which always merges with stride 2, with MobileSAM's one change."""
    trunk = timm_tiny_vit.TinyVit(**config)
    for stage, width in zip(trunk.stages[1:], config["embed_dims"][1:], strict=True):
        if width in {320, 448, 576}:
            stage.downsample.conv2.conv.stride = (1, 1)
    return trunk


def trunk_twins(img_size, changes, dtype):
    """Ours without its neck, which timm lacks, and timm's."""
    config = SMALL | changes
    ours = TinyViT(img_size=img_size, **config)
    ours.neck = nn.Identity()
    return twins(ours, original_trunk(config), dtype, from_timm)


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
@pytest.mark.parametrize(("img_size", "changes"), CONFIGS.values(), ids=CONFIGS)
def test_trunk_equals_timm(img_size, changes, dtype):
    ours, theirs = trunk_twins(img_size, changes, dtype)
    x = random(2, changes.get("in_chans", 3), img_size, img_size, dtype=dtype)
    assert_close(ours(x), theirs.forward_features(x))


def test_each_stage_equals_timm():
    ours, theirs = trunk_twins(64, {"embed_dims": (8, 16, 24, 320)}, torch.float64)
    x = random(2, 3, 64, 64, dtype=torch.float64)
    tokens = ours.patch_embed(x)
    stages = theirs.forward_intermediates(x, intermediates_only=True)
    assert [tuple(stage.shape[2:]) for stage in stages] == [(16, 16), (8, 8), (4, 4), (4, 4)]
    for layer, stage in zip(ours.layers, stages, strict=True):
        for block in layer.blocks:
            tokens = block(tokens)
        assert_close(tokens if tokens.ndim == 3 else tokens.flatten(2).mT, stage.flatten(2).mT)
        tokens = tokens if layer.downsample is None else layer.downsample(tokens)


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
def test_neck_equals_the_originals(dtype):
    ours, trunk = trunk_twins(64, {}, dtype)
    theirs = randomise(OriginalEncoder(embed_dim=32, depth=0).neck).to(dtype)
    ours.neck = randomise(TinyViT(img_size=64, **SMALL).neck, seed=9).to(dtype)
    ours.neck.load_state_dict(theirs.state_dict(), strict=True)
    x = random(2, 3, 64, 64, dtype=dtype)
    assert_close(ours(x), theirs(trunk.forward_features(x)))


@pytest.mark.parametrize("imgsz", [(96, 96), (48, 112)], ids=str)
def test_set_imgsz_equals_timm_at_that_size(imgsz):
    ours, theirs = trunk_twins(64, {}, torch.float64)
    state = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    x = random(1, 3, 64, 64, dtype=torch.float64)
    before = ours(x)
    ours.set_imgsz(imgsz)
    assert ours.img_size == imgsz[0]
    resized = random(2, 3, *imgsz, dtype=torch.float64)
    assert_close(ours(resized), theirs.forward_features(resized))

    ours.set_imgsz((64, 64))
    assert torch.equal(ours(x), before)
    assert list(ours.state_dict()) == list(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in ours.state_dict().items())


@pytest.mark.parametrize("imgsz", [(100, 96), (96, 100), (0, 96), (-16, 96)], ids=str)
def test_set_imgsz_refuses_what_does_not_end_at_stride_16(imgsz):
    with pytest.raises(ValueError, match=r"imgsz=.*multiples of 16"):
        TinyViT(img_size=64, **SMALL).set_imgsz(imgsz)


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
@pytest.mark.parametrize("resolution", [(3, 5), (4, 4)], ids=str)
def test_attention_equals_timm(resolution, dtype):
    shape = {"dim": 24, "key_dim": 5, "num_heads": 3, "attn_ratio": 2, "resolution": resolution}
    ours, theirs = twins(Attention(**shape), timm_tiny_vit.Attention(**shape), dtype)
    x = random(2, resolution[0] * resolution[1], 24, dtype=dtype)
    assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("size_hw", [(3, 3), (6, 3), (4, 7), (2, 2)], ids=str)
def test_block_equals_timm_with_and_without_padded_windows(size_hw):
    ours = TinyViTBlock(16, size_hw, 2, window_size=3)
    theirs = timm_tiny_vit.TinyVitBlock(16, 2, window_size=3)
    ours, theirs = twins(ours, theirs, torch.float64, from_timm)
    x = random(2, *size_hw, 16, dtype=torch.float64)
    assert_close(ours(x.flatten(1, 2)), theirs(x).flatten(1, 2))


CONVOLUTIONS = {
    "plain": {},
    "strided": {"ks": 3, "stride": 2, "pad": 1},
    "depthwise": {"ks": 3, "pad": 1, "groups": 8},
    "dilated": {"ks": 3, "pad": 2, "dilation": 2, "groups": 2},
}


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
@pytest.mark.parametrize("shape", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_a_folded_convolution_equals_both_layers(shape, dtype):
    layer = randomise(Conv2d_BN(8, 16, **shape)).to(dtype).eval()
    layer.bn.eps = 0.1
    x = random(2, 8, 9, 7, dtype=dtype)
    assert_close(layer(x), layer.bn(layer.c(x)))
    layer.train()
    assert torch.equal(layer(x), layer.bn(layer.c(x)))


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_conv2d_bn_starts_with_the_given_weight(value):
    assert torch.all(Conv2d_BN(4, 4, bn_weight_init=value).bn.weight == value)
    assert torch.all(MBConv(4, 4, 2.0, nn.GELU, 0.0).conv3.bn.weight == 0)


@pytest.mark.parametrize(
    ("out_dim", "tokens"), [(320, 35), (448, 35), (576, 35), (319, 12), (192, 12), (768, 12)]
)
def test_patch_merging_keeps_the_resolution_at_three_widths(out_dim, tokens):
    merge = PatchMerging((5, 7), 6, out_dim, nn.GELU).eval()
    assert merge(random(1, 35, 6)).shape == (1, tokens, out_dim)
    as_map = random(1, 6, 5, 7)
    assert torch.equal(merge(as_map), merge(as_map.flatten(2).mT))


def test_drop_path_zeroes_items_and_keeps_the_mean():
    drop = DropPath(0.25).train()
    out = drop(torch.ones(4000, 2, 3))
    assert torch.all(out == out[:, :1, :1])
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert float(out.mean()) == pytest.approx(1, abs=0.05)
    assert torch.all(drop.eval()(torch.ones(4, 2)) == 1)


def test_drop_path_rate_grows_linearly_over_the_blocks():
    model = TinyViT(img_size=64, **SMALL, drop_path_rate=0.5)
    rates = [block.drop_path.drop_prob for layer in model.layers for block in layer.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])


def test_options_of_the_published_constructor_are_kept():
    model = TinyViT(img_size=64, **SMALL, drop_rate=0.25, layer_lr_decay=0.8)
    assert model.layer_lr_decay == 0.8
    assert model.layers[1].blocks[0].mlp.drop.p == 0.25


def test_each_block_learns_slower_than_the_next():
    """Of six blocks in four stages, as `SMALL` has them."""
    model = TinyViT(img_size=64, **SMALL, layer_lr_decay=0.5)
    depths = [len(layer.blocks) for layer in model.layers]
    scales = {name: p.lr_scale for name, p in model.named_parameters()}
    expected = [0.5 ** (sum(depths) - 1 - i) for i in range(sum(depths))]
    firsts = [
        scales[next(n for n in scales if n.startswith(f"layers.{i}.blocks.{j}."))]
        for i, depth in enumerate(depths)
        for j in range(depth)
    ]
    assert firsts == expected
    assert scales["patch_embed.seq.0.c.weight"] == expected[0]
    # What merges a stage's tokens goes with its last block.
    assert scales["layers.1.downsample.conv1.c.weight"] == expected[sum(depths[:2]) - 1]
    assert scales["norm_head.weight"] == scales["neck.0.weight"] == 1.0
    model.set_layer_lr_decay(1.0)
    assert {p.lr_scale for p in model.parameters()} == {1.0}


def test_learned_biases_are_named_as_not_decaying():
    model = TinyViT(img_size=64, **SMALL)
    (keyword,) = model.no_weight_decay_keywords()
    assert sum(keyword in name for name, _ in model.named_parameters()) == 4


# --- examples of the specification ----------------------------------------------------------------


def test_mbconv_needs_equal_widths():
    assert MBConv(64, 64, 4, nn.ReLU, 0.1)(random(2, 64, 5, 5)).shape == (2, 64, 5, 5)
    with pytest.raises(ValueError, match="in_chans=32 must equal out_chans=64"):
        MBConv(32, 64, 4, nn.ReLU, 0.1)


def test_forward_features_is_forward():
    model = TinyViT(img_size=64, **SMALL).eval()
    x = random(1, 3, 64, 64)
    assert torch.equal(model.forward_features(x), model(x))
    model.set_imgsz()
    assert model.img_size == 1024


def test_mlp_has_the_published_arguments_and_defaults():
    mlp = Mlp(in_features=256, hidden_features=512, out_features=128, act_layer=nn.GELU, drop=0.1)
    assert mlp(random(2, 10, 256)).shape == (2, 10, 128)
    assert (mlp.fc1.out_features, mlp.drop.p) == (512, 0.1)
    plain = Mlp(8)
    assert (plain.fc1.out_features, plain.fc2.out_features, plain.drop.p) == (8, 8, 0.0)


def test_stages_have_the_published_arguments_and_defaults():
    convolutions = ConvLayer(64, (56, 56), depth=3, activation=nn.ReLU).eval()
    assert convolutions(random(1, 64, 56, 56)).shape == (1, 64, 56, 56)
    layer = BasicLayer(dim=96, input_resolution=(28, 28), depth=2, num_heads=3, window_size=7)
    assert layer.eval()(random(1, 784, 96)).shape == (1, 784, 96)
    merging = {"downsample": PatchMerging, "out_dim": 128}
    convolutions = ConvLayer(64, (28, 28), 1, nn.GELU, [0.1], **merging).eval()
    assert convolutions(random(1, 64, 28, 28)).shape == (1, 196, 128)
    layer = BasicLayer(64, (28, 28), 1, 2, 7, drop_path=0.1, downsample=PatchMerging).eval()
    assert layer(random(1, 784, 64)).shape == (1, 196, 64)
    with pytest.raises(ValueError, match="drop_path has 1 rates for 2 blocks"):
        ConvLayer(64, (28, 28), 2, nn.GELU, [0.1])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TinyViTBlock(192, (14, 14), 3, window_size=0), "window_size=0 must be positive"),
        (lambda: Hiera(window_spec=(8, 0, 14, 7)), "global_att_blocks have no windows"),
        (lambda: window_partition(torch.zeros(1, 4, 4, 1), 0), "window_size=0: a window has"),
    ],
    ids=["TinyViT", "Hiera", "a map"],
)
def test_windows_have_a_size(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_attention_maps_tokens_to_the_same_shape():
    assert Attention(256, 64, 8, resolution=(14, 14))(random(1, 196, 256)).shape == (1, 196, 256)


def test_block_maps_tokens_to_the_same_shape():
    block = TinyViTBlock(192, (14, 14), 3)
    assert block(random(1, 196, 192)).shape == (1, 196, 192)
    with pytest.raises(ValueError, match="195 tokens for an input resolution of 14 x 14"):
        block(random(1, 195, 192))


def test_block_needs_a_width_that_splits_into_heads():
    with pytest.raises(ValueError, match="dim=192 must be a multiple of num_heads=5"):
        TinyViTBlock(192, (14, 14), 5)


def test_default_model_at_224():
    """Widths of 96 to 768 stride in every stage: the published default ends at 1/32."""
    assert TinyViT(depths=(1, 1, 1, 1)).eval()(random(1, 3, 224, 224)).shape == (1, 256, 7, 7)


# --- the layout of mobile_sam.pt ------------------------------------------------------------------

# As `mobile_sam/modeling/tiny_vit_sam.py` names and sizes them.
PUBLISHED = {
    "patch_embed.seq.0.c.weight": (32, 3, 3, 3),
    "patch_embed.seq.0.bn.weight": (32,),
    "patch_embed.seq.0.bn.bias": (32,),
    "patch_embed.seq.0.bn.running_mean": (32,),
    "patch_embed.seq.0.bn.running_var": (32,),
    "patch_embed.seq.0.bn.num_batches_tracked": (),
    "patch_embed.seq.2.c.weight": (64, 32, 3, 3),
    "layers.0.blocks.0.conv1.c.weight": (256, 64, 1, 1),
    "layers.0.blocks.0.conv2.c.weight": (256, 1, 3, 3),
    "layers.0.blocks.1.conv3.c.weight": (64, 256, 1, 1),
    "layers.0.blocks.1.conv3.bn.running_var": (64,),
    "layers.0.downsample.conv1.c.weight": (128, 64, 1, 1),
    "layers.0.downsample.conv2.c.weight": (128, 1, 3, 3),
    "layers.0.downsample.conv3.bn.bias": (128,),
    "layers.1.blocks.0.attn.attention_biases": (4, 49),
    "layers.1.blocks.0.attn.norm.weight": (128,),
    "layers.1.blocks.0.attn.qkv.weight": (384, 128),
    "layers.1.blocks.0.attn.qkv.bias": (384,),
    "layers.1.blocks.0.attn.proj.weight": (128, 128),
    "layers.1.blocks.1.mlp.norm.bias": (128,),
    "layers.1.blocks.1.mlp.fc1.weight": (512, 128),
    "layers.1.blocks.1.mlp.fc2.weight": (128, 512),
    "layers.1.blocks.1.local_conv.c.weight": (128, 1, 3, 3),
    "layers.1.blocks.1.local_conv.bn.running_mean": (128,),
    "layers.1.downsample.conv1.c.weight": (160, 128, 1, 1),
    "layers.2.blocks.5.attn.attention_biases": (5, 196),
    "layers.2.downsample.conv2.c.weight": (320, 1, 3, 3),
    "layers.3.blocks.1.attn.attention_biases": (10, 49),
    "layers.3.blocks.1.attn.proj.bias": (320,),
    "norm_head.weight": (320,),
    "norm_head.bias": (320,),
    "head.weight": (1000, 320),
    "head.bias": (1000,),
    "neck.0.weight": (256, 320, 1, 1),
    "neck.1.weight": (256,),
    "neck.1.bias": (256,),
    "neck.2.weight": (256, 256, 3, 3),
    "neck.3.bias": (256,),
}


@pytest.fixture(scope="module")
def mobile_sam():
    return build_tiny_sam(MOBILE_SAM)


def test_mobile_sam_has_the_published_keys(mobile_sam):
    ours = layout(mobile_sam.image_encoder)
    assert {name: ours.get(name) for name in PUBLISHED} == PUBLISHED
    # Indices and cached biases are rebuilt, and were never saved; the last stage merges nothing.
    assert not [name for name in ours if "idxs" in name or name.startswith("layers.3.downsample")]


def test_mobile_sam_has_timm_keys_and_a_neck(mobile_sam):
    with torch.device("meta"):
        timm_model = timm_tiny_vit.tiny_vit_5m_224(num_classes=1000)
    neck = {name: shape for name, shape in PUBLISHED.items() if name.startswith("neck.")}
    neck |= {"neck.3.weight": (256,)}
    expected = {name: tuple(t.shape) for name, t in from_timm(timm_model.state_dict()).items()}
    assert layout(mobile_sam.image_encoder) == expected | neck


def test_mobile_sam_has_the_published_number_of_parameters(mobile_sam):
    """10.13 M: SAM's decoder has 4.06 M, the prompt encoder 6 k, and the encoder 6.07 M.

    Of these last, 0.32 M are the classification head, which SAM does not use, and 0.67 M the neck.
    """
    counts = {
        name: sum(p.numel() for p in part.parameters()) for name, part in named_parts(mobile_sam)
    }
    assert counts == {
        "image_encoder": 6_065_532,
        "prompt_encoder": 6_220,
        "mask_decoder": 4_058_340,
        "head": 321_000,
        "norm_head": 640,
        "neck": 672_768,
    }
    assert sum(p.numel() for p in mobile_sam.parameters()) == 10_130_092


def named_parts(model):
    yield from model.named_children()
    for name in ("head", "norm_head", "neck"):
        yield name, getattr(model.image_encoder, name)
