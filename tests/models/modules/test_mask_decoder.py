import pytest
import torch
from segment_anything.modeling import MaskDecoder as OriginalMaskDecoder
from segment_anything.modeling import TwoWayTransformer as OriginalTransformer
from torch import nn
from transformers.models.sam.configuration_sam import SamMaskDecoderConfig
from transformers.models.sam.modeling_sam import SamMaskDecoder

from amg.models.modules.mask_decoder import MaskDecoder
from amg.models.modules.two_way_transformer import Attention, TwoWayTransformer
from tests.models.parity import (
    BOTH_DTYPES,
    assert_close,
    from_transformers,
    layout,
    random,
    randomise,
    twins,
)

N, DIM = 5, 32
CONFIGS = {
    "mlp 2048": ({"mlp_dim": 2048}, {}),
    "mlp 512": ({"mlp_dim": 512}, {}),
    "one block": ({"depth": 1}, {}),
    "three blocks": ({"depth": 3}, {}),
    "heads": ({"num_heads": 8}, {}),
    "no downsampling": ({"attention_downsample_rate": 1}, {}),
    "activations": ({"activation": nn.Tanh}, {"activation": nn.ReLU}),
    "five masks": ({}, {"num_multimask_outputs": 5}),
    "IoU head": ({}, {"iou_head_depth": 2, "iou_head_hidden_dim": 24}),
}


def build(decoder, transformer, transformer_changes, changes):
    config = {"depth": 2, "embedding_dim": DIM, "num_heads": 4, "mlp_dim": 48}
    return decoder(
        transformer_dim=DIM, transformer=transformer(**config | transformer_changes), **changes
    )


def decoder_twins(transformer_changes=None, changes=None, dtype=torch.float32):
    given = transformer_changes or {}, changes or {}
    ours = build(MaskDecoder, TwoWayTransformer, *given)
    return twins(ours, build(OriginalMaskDecoder, OriginalTransformer, *given), dtype)


def prompts(dtype, n_tokens=3, size_hw=(6, 5)):
    """One image's embedding and positions; sparse and dense embeddings of N prompts."""
    return (
        random(1, DIM, *size_hw, dtype=dtype, seed=1),
        random(1, DIM, *size_hw, dtype=dtype, seed=2),
        random(N, n_tokens, DIM, dtype=dtype, seed=3),
        random(N, DIM, *size_hw, dtype=dtype, seed=4),
    )


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
@pytest.mark.parametrize(("transformer", "decoder"), CONFIGS.values(), ids=CONFIGS)
def test_equals_the_original(transformer, decoder, dtype):
    ours, theirs = decoder_twins(transformer, decoder, dtype)
    assert layout(ours) == layout(theirs)
    given = prompts(dtype)
    for multimask_output in (True, False):
        results = ours(*given, multimask_output), theirs(*given, multimask_output)
        for mine, expected in zip(*results, strict=True):
            assert_close(mine, expected)


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
@pytest.mark.parametrize("n_tokens", [0, 1, 7])
def test_any_number_of_prompt_tokens(n_tokens, dtype):
    ours, theirs = decoder_twins(dtype=dtype)
    given = prompts(dtype, n_tokens)
    for mine, expected in zip(ours(*given, True), theirs(*given, True), strict=True):
        assert_close(mine, expected)


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
@pytest.mark.parametrize("mlp_dim", [2048, 512])
@pytest.mark.parametrize("multimask_output", [True, False])
def test_equals_transformers(multimask_output, mlp_dim, dtype):
    config = SamMaskDecoderConfig(
        hidden_size=DIM,
        mlp_dim=mlp_dim,
        num_attention_heads=4,
        layer_norm_eps=1e-5,  # the original's: the default here, 1e-6, departs from it
        attn_implementation="sdpa",  # the eager one takes the softmax in float32
    )
    ours = build(MaskDecoder, TwoWayTransformer, {"mlp_dim": mlp_dim}, {})
    rename = from_transformers("mask_decoder")
    ours, theirs = twins(ours, SamMaskDecoder(config), dtype, rename)
    image, positions, sparse, dense = prompts(dtype, size_hw=(6, 6))
    expected = theirs(image, positions, sparse.unsqueeze(0), dense[:1], multimask_output)
    for mine, theirs_ in zip(
        ours(image, positions, sparse, dense[:1], multimask_output), expected, strict=True
    ):
        assert_close(mine, theirs_[0])


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
def test_transformer_equals_the_original(dtype):
    """Both of its outputs, with other pixels for each prompt and with shared ones."""
    config = {"depth": 2, "embedding_dim": DIM, "num_heads": 4, "mlp_dim": 48}
    ours, theirs = twins(TwoWayTransformer(**config), OriginalTransformer(**config), dtype)
    image, positions, tokens, dense = prompts(dtype)
    for pixels in (image + dense, image):
        repeated = (pixels.expand(N, -1, -1, -1), positions.expand(N, -1, -1, -1), tokens)
        for mine, expected in zip(ours(pixels, positions, tokens), theirs(*repeated), strict=True):
            assert_close(mine, expected)


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
@pytest.mark.parametrize("multimask_output", [True, False])
def test_shared_dense_equals_the_expanded(multimask_output, dtype):
    ours, theirs = decoder_twins(dtype=dtype)
    image, positions, sparse, dense = prompts(dtype)
    shared = dense[:1]
    expanded = shared.expand(N, -1, -1, -1)
    expected = theirs(image, positions, sparse, expanded, multimask_output)
    for given in (shared, expanded):
        results = ours(image, positions, sparse, given, multimask_output)
        for mine, their in zip(results, expected, strict=True):
            assert_close(mine, their)


@pytest.mark.parametrize("kept", [[1, 3], [4], [], [4, 0, 2, 1, 3]], ids=str)
@pytest.mark.parametrize("shared", [True, False])
def test_steps_on_some_prompts_equal_those_rows_of_the_whole(shared, kept):
    ours, theirs = decoder_twins(dtype=torch.float64)
    image, positions, sparse, dense = prompts(torch.float64)
    dense = dense[:1] if shared else dense
    logits, predicted_iou = theirs.predict_masks(image, positions, sparse, dense)
    decoded = ours.attend(image, positions, sparse, dense)
    assert decoded.pixels.shape == (N, DIM, 6, 5)
    assert decoded.mask_tokens.shape == (N, 4, DIM)
    assert_close(decoded.predicted_iou, predicted_iou)
    predicted = ours.predict_all(ours.upscale(decoded.pixels[kept]), decoded.mask_tokens[kept])
    assert_close(predicted, logits[kept])


@pytest.mark.parametrize("multimask_output", [True, False])
def test_shapes_of_the_specification(multimask_output):
    transformer = TwoWayTransformer(depth=2, embedding_dim=256, num_heads=8, mlp_dim=2048)
    decoder = randomise(MaskDecoder(transformer_dim=256, transformer=transformer))
    image, sparse, dense = random(1, 256, 8, 8), random(2, 3, 256), random(2, 256, 8, 8)
    logits, predicted_iou = decoder(image, image, sparse, dense, multimask_output)
    n_masks = 3 if multimask_output else 1
    assert logits.shape == (2, n_masks, 32, 32)
    assert predicted_iou.shape == (2, n_masks)


def test_channels_must_split_into_heads():
    with pytest.raises(ValueError, match="16 channels cannot be split into 3 heads"):
        Attention(32, 3, downsample_rate=2)
