from functools import partial

import pytest
import torch
import torch.nn.functional as F
from segment_anything.modeling import ImageEncoderViT as OriginalEncoder
from segment_anything.modeling.image_encoder import Attention as OriginalAttention
from torch import nn
from transformers import SamVisionConfig
from transformers.models.sam.modeling_sam import SamVisionEncoder

from amg.models.modules import image_encoder_vit
from amg.models.modules.image_encoder_vit import Attention, ImageEncoderViT
from tests.models.parity import BOTH_DTYPES, assert_close, from_transformers, layout, random, twins

SMALL = {
    "img_size": 96,
    "embed_dim": 24,
    "depth": 3,
    "num_heads": 3,
    "out_chans": 16,
    "norm_layer": partial(nn.LayerNorm, eps=1e-6),
    "use_rel_pos": True,
    "window_size": 4,  # the grid of 6 x 6 is padded to 8 x 8
    "global_attn_indexes": (1,),
}
CONFIGS = {
    "as published": {},
    "windows that fill the grid": {"window_size": 3},
    "one window larger than the grid": {"window_size": 7},
    "all global": {"window_size": 0, "global_attn_indexes": ()},
    "no positions": {"use_abs_pos": False, "use_rel_pos": False},
    "absolute positions alone": {"use_rel_pos": False},
    "relative positions alone": {"use_abs_pos": False},
    "other sizes": {"img_size": 40, "patch_size": 8, "in_chans": 1, "mlp_ratio": 2.5},
    "no qkv bias": {"qkv_bias": False},
    "other layers": {"norm_layer": partial(nn.LayerNorm, eps=0.1), "act_layer": nn.ReLU},
    "defaults of the layers": {"norm_layer": nn.LayerNorm},
}


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
@pytest.mark.parametrize("changes", CONFIGS.values(), ids=CONFIGS)
def test_equals_the_original(changes, dtype):
    config = SMALL | changes
    ours, theirs = twins(ImageEncoderViT(**config), OriginalEncoder(**config), dtype)
    assert layout(ours) == layout(theirs)
    size = config["img_size"]
    x = random(2, config.get("in_chans", 3), size, size, dtype=dtype)
    assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
@pytest.mark.parametrize("size_hw", [(3, 5), (4, 2)], ids=str)
def test_attention_on_a_map_that_is_not_square_equals_the_original(size_hw, dtype):
    shape = {"dim": 16, "num_heads": 2, "qkv_bias": True, "use_rel_pos": True}
    ours = Attention(**shape, rel_pos_zero_init=True, input_size=size_hw)
    ours, theirs = twins(ours, OriginalAttention(**shape, input_size=size_hw), dtype)
    x = random(2, *size_hw, 16, dtype=dtype)
    assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
@pytest.mark.parametrize("use_abs_pos", [True, False])
def test_equals_transformers(use_abs_pos, dtype):
    config = SamVisionConfig(
        hidden_size=24,
        output_channels=16,
        num_hidden_layers=3,
        num_attention_heads=3,
        image_size=96,
        window_size=4,
        global_attn_indexes=[1],
        use_abs_pos=use_abs_pos,
        attn_implementation="sdpa",  # the eager one takes the softmax in float32
    )
    ours = ImageEncoderViT(**SMALL, use_abs_pos=use_abs_pos)
    rename = from_transformers("vision_encoder")
    ours, theirs = twins(ours, SamVisionEncoder(config), dtype, rename)
    x = random(2, 3, 96, 96, dtype=dtype)
    assert_close(ours(x), theirs(x).last_hidden_state)


@pytest.mark.parametrize("zero_init", [True, False])
def test_rel_pos_zero_init(zero_init):
    config = {"img_size": 448, "embed_dim": 32, "depth": 1, "num_heads": 1, "use_rel_pos": True}
    for name, table in ImageEncoderViT(**config, rel_pos_zero_init=zero_init).named_parameters():
        if "rel_pos" in name:
            assert float(table.std()) == pytest.approx(0 if zero_init else 0.02, abs=0.002)


@pytest.mark.parametrize("imgsz", [(64, 64), (128, 128), (112, 80)], ids=str)
def test_set_imgsz_resizes_the_positions(imgsz):
    """The original resizes relative positions itself; the absolute ones are resized for it."""
    ours, theirs = twins(ImageEncoderViT(**SMALL), OriginalEncoder(**SMALL), torch.float64)
    grid = (imgsz[0] // 16, imgsz[1] // 16)
    absolute = F.interpolate(theirs.pos_embed.permute(0, 3, 1, 2), grid, mode="bicubic")
    theirs.pos_embed = nn.Parameter(absolute.permute(0, 2, 3, 1))
    ours.set_imgsz(imgsz)
    x = random(2, 3, *imgsz, dtype=torch.float64)
    assert_close(ours(x), theirs(x))


def test_set_imgsz_can_be_undone():
    ours, _ = twins(ImageEncoderViT(**SMALL), OriginalEncoder(**SMALL))
    state = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    x = random(1, 3, 96, 96)
    before = ours(x)
    ours.set_imgsz((160, 160))
    assert ours.img_size == 160
    assert ours(random(1, 3, 160, 160)).shape == (1, 16, 10, 10)
    ours.set_imgsz((96, 96))
    assert ours.img_size == 96
    assert torch.equal(ours(x), before)
    assert list(ours.state_dict()) == list(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in ours.state_dict().items())


@pytest.mark.parametrize("imgsz", [(100, 96), (96, 100), (0, 96), (-16, 96)], ids=str)
def test_set_imgsz_refuses_what_patches_do_not_fill(imgsz):
    with pytest.raises(ValueError, match=r"imgsz=.*multiples of 16"):
        ImageEncoderViT(**SMALL).set_imgsz(imgsz)


def test_shape_of_the_specification():
    encoder = ImageEncoderViT(img_size=224, depth=1)
    assert encoder(torch.zeros(1, 3, 224, 224)).shape == (1, 256, 14, 14)


@pytest.mark.parametrize("n_elements", [1, 3000, 10**9])
def test_attention_by_any_number_of_rows_is_the_same(n_elements, monkeypatch):
    ours, theirs = twins(ImageEncoderViT(**SMALL), OriginalEncoder(**SMALL))
    x = random(2, 3, SMALL["img_size"], SMALL["img_size"])
    monkeypatch.setattr(image_encoder_vit, "_BIAS_ELEMENTS_CPU", n_elements)
    assert_close(ours(x), theirs(x))
