from functools import partial

import pytest
import torch
from transformers import Sam2MaskDecoderConfig
from transformers.models.sam2.modeling_sam2 import Sam2MaskDecoder

from amg.models.families.sam2 import two_layer_mlp
from amg.models.modules.prompt_encoder import PromptEncoder
from amg.models.modules.sam2_mask_decoder import SAM2MaskDecoder
from amg.models.modules.two_way_transformer import TwoWayTransformer
from tests.models.parity import (
    BOTH_DTYPES,
    assert_close,
    from_transformers,
    layout,
    random,
    randomise,
    twins,
)

N, DIM, SIZE_HW = 5, 32, (6, 6)
TRANSFORMER = {"depth": 2, "embedding_dim": DIM, "num_heads": 4, "mlp_dim": 48}
PUBLISHED = {
    "use_high_res_features": True,
    "iou_prediction_use_sigmoid": True,
    "pred_obj_scores": True,
    "pred_obj_scores_mlp": True,
    "use_multimask_token_for_obj_ptr": True,
    "dynamic_multimask_via_stability": True,
    # Random masks are not very stable: with this, some are and some are not.
    "dynamic_multimask_stability_thresh": 0.82,
}
CONFIGS = {
    "as published": {},
    "as SAM's": dict.fromkeys(PUBLISHED, False) | {"dynamic_multimask_stability_thresh": 0.98},
    "linear object score": {"pred_obj_scores_mlp": False},
    "no object score": {"pred_obj_scores": False},
    "no high resolution": {"use_high_res_features": False},
    "IoU without bounds": {"iou_prediction_use_sigmoid": False},
    "no fallback": {"dynamic_multimask_via_stability": False},
    "fallback always": {"dynamic_multimask_stability_thresh": 1.1},
    "fallback never": {"dynamic_multimask_stability_thresh": 0.0},
    "wide margin": {"dynamic_multimask_stability_delta": 0.5},
    "pointers from the first mask": {"use_multimask_token_for_obj_ptr": False},
    "five masks": {"num_multimask_outputs": 5},
}
our_transformer = partial(TwoWayTransformer, make_mlp=two_layer_mlp)


@pytest.fixture
def original():
    pytest.importorskip("benchmarks.original_sam2")
    from sam2.modeling.sam import mask_decoder, transformer

    def build(**options):
        return mask_decoder.MaskDecoder(
            transformer_dim=DIM,
            transformer=transformer.TwoWayTransformer(**TRANSFORMER),
            iou_head_hidden_dim=24,
            **options,
        )

    return build


def ours(**options):
    return SAM2MaskDecoder(
        transformer_dim=DIM,
        transformer=our_transformer(**TRANSFORMER),
        iou_head_hidden_dim=24,
        **options,
    )


def prompts(dtype, n_images=1):
    """Embeddings of an image, or of one for each prompt; positions; sparse, dense; high-res."""
    h, w = SIZE_HW
    high_res = ((DIM // 8, 4 * h, 4 * w), (DIM // 4, 2 * h, 2 * w))
    return (
        random(n_images, DIM, h, w, dtype=dtype, seed=1),
        random(1, DIM, h, w, dtype=dtype, seed=2),
        random(N, 2, DIM, dtype=dtype, seed=3),
        random(N, DIM, h, w, dtype=dtype, seed=4),
        [random(n_images, *size, dtype=dtype, seed=5) for size in high_res],
    )


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
@pytest.mark.parametrize("n_images", [1, N])
@pytest.mark.parametrize("changes", CONFIGS.values(), ids=CONFIGS)
def test_equals_the_original(original, changes, n_images, dtype):
    mine, theirs = twins(ours(**PUBLISHED | changes), original(**PUBLISHED | changes), dtype)
    assert layout(mine) == layout(theirs)
    *given, high_res = prompts(dtype, n_images)
    for multimask_output in (True, False):
        expected = theirs(*given, multimask_output, n_images == 1, high_res)
        for a, b in zip(mine(*given, multimask_output, high_res), expected, strict=True):
            assert_close(a, b)


def test_the_fallback_is_for_some_of_the_masks(original):
    """Else the comparisons above would not show much."""
    mine, _ = twins(ours(**PUBLISHED), original(**PUBLISHED))
    *given, high_res = prompts(torch.float32)
    decoded = mine.attend(*given)
    first = decoded.predicted_iou[:, :1]
    from_first = mine(*given, False, high_res).predicted_iou == first
    assert 0 < int(from_first.sum()) < N


@pytest.mark.parametrize("changes", [{}, CONFIGS["no fallback"]], ids=["fallback", "none"])
def test_what_is_predicted_was_possible(changes):
    """And nothing else is: prompts that cannot pass get no masks."""
    mine = randomise(ours(**PUBLISHED | changes)).eval()
    *given, high_res = prompts(torch.float32)
    decoded = mine.attend(*given)
    predicted = mine(*given, False, high_res).predicted_iou
    possible = mine.possible_iou(decoded, False)
    assert (possible == predicted).any(dim=1).all()
    assert possible.shape == (N, 4 if not changes else 1)


def test_training_has_no_fallback(original):
    options = PUBLISHED | CONFIGS["fallback always"]
    mine, theirs = twins(ours(**options), original(**options), torch.float64)
    *given, high_res = prompts(torch.float64)
    expected, *_ = theirs.train()(*given, False, True, high_res)
    assert_close(mine.train()(*given, False, high_res).logits, expected)
    with pytest.raises(AssertionError):
        assert_close(mine.eval()(*given, False, high_res).logits, expected)


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
@pytest.mark.parametrize("multimask_output", [True, False])
def test_equals_transformers(multimask_output, dtype):
    config = Sam2MaskDecoderConfig(
        hidden_size=DIM,
        mlp_dim=48,
        num_attention_heads=4,
        iou_head_hidden_dim=24,
        dynamic_multimask_stability_thresh=0.82,
        attn_implementation="sdpa",  # the eager one takes the softmax in float32
    )
    rename = from_transformers("mask_decoder", sam2=True)
    mine, theirs = twins(ours(**PUBLISHED), Sam2MaskDecoder(config), dtype, rename)
    image, positions, sparse, dense, high_res = prompts(dtype)
    expected = theirs(image, positions, sparse[None], dense[:1], multimask_output, high_res)
    masks = mine(image, positions, sparse, dense[:1], multimask_output, high_res)
    for a, b in zip(masks, expected, strict=True):
        assert_close(a, b[0])


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
@pytest.mark.parametrize("with_mask", [True, False])
def test_prompt_encoder_equals_sam2s(with_mask, dtype):
    """SAM's, and the corners of a box as points."""
    pytest.importorskip("benchmarks.original_sam2")
    from sam2.modeling.sam.prompt_encoder import PromptEncoder as OriginalPromptEncoder

    size = 16, (4, 4), (64, 64), 8
    mine, theirs = twins(PromptEncoder(*size), OriginalPromptEncoder(*size))
    assert layout(mine) == layout(theirs)
    coords = random(3, 5, 2).abs() * 30
    labels = torch.tensor([[2, 3, 1, 0, -1]] * 3)
    masks = random(3, 1, 16, 16) if with_mask else None
    given = (coords, labels), None, masks
    for a, b in zip(mine(*given), theirs(*given), strict=True):
        assert_close(a, b)
    assert_close(mine.get_dense_pe(), theirs.get_dense_pe())
