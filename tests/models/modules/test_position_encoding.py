import pytest
import torch
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoPositionEmbeddingSine

from amg.models.modules.position_encoding import PositionEmbeddingSine, encode_line
from tests.models.parity import BOTH_DTYPES, assert_close, precision

CONFIGS = {
    "published": {"num_pos_feats": 64, "normalize": True, "scale": None, "temperature": 10000},
    "narrow": {"num_pos_feats": 4},
    "temperature": {"num_pos_feats": 12, "temperature": 20},
    "cells": {"num_pos_feats": 8, "normalize": False},
    "scale": {"num_pos_feats": 8, "scale": 3.0},
}
SIZES = [(4, 4), (3, 7), (5, 1)]


def original():
    pytest.importorskip("benchmarks.original_sam2")
    from sam2.modeling import position_encoding

    return position_encoding.PositionEmbeddingSine


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
@pytest.mark.parametrize("size_hw", SIZES, ids=str)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_equals_the_original(config, size_hw, dtype):
    x = torch.zeros(2, 3, *size_hw, dtype=dtype)
    with precision(dtype):
        expected = original()(**config)(x)
    assert_close(PositionEmbeddingSine(**config)(x), expected)


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
@pytest.mark.parametrize("size_hw", SIZES, ids=str)
def test_equals_transformers(size_hw, dtype):
    theirs = Sam2VideoPositionEmbeddingSine(num_position_features=8, normalize=True)
    expected = theirs((2, 3, *size_hw), "cpu", dtype)
    assert_close(PositionEmbeddingSine(16)(torch.zeros(2, 3, *size_hw, dtype=dtype)), expected)


def test_half_precision_has_float32_positions():
    x = torch.zeros(1, 3, 4, 5)
    ours = PositionEmbeddingSine(8)
    assert torch.equal(ours(x.bfloat16()), ours(x))


def test_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="num_pos_feats=6"):
        PositionEmbeddingSine(6)
    with pytest.raises(ValueError, match="scale=2"):
        PositionEmbeddingSine(8, normalize=False, scale=2)


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
@pytest.mark.parametrize("dim", [2, 10, 32])
def test_positions_on_a_line_equal_the_original(dim, dtype):
    pytest.importorskip("benchmarks.original_sam2")
    from sam2.modeling.sam2_utils import get_1d_sine_pe

    position = torch.tensor([-3, 0, 1, 15]).to(dtype) / 15
    with precision(dtype):
        expected = get_1d_sine_pe(position, dim)
    assert_close(encode_line(position, dim), expected)
