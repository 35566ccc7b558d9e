import pytest
import torch

from amg.models.modules.rope_attention import RoPEAttention, axial_rotation, rotate
from tests.models.parity import BOTH_DTYPES, assert_close, layout, precision, random, twins

DIM = 32
CONFIGS = {
    "plain": {},
    "heads": {"num_heads": 4},
    "narrow": {"downsample_rate": 2, "num_heads": 2},
    "theta": {"rope_theta": 10.0},
    "keys of other width": {"kv_in_dim": 12},
    "not square": {"feat_sizes": (8, 2)},
    "several maps": {"rope_k_repeat": True},
}


def original():
    pytest.importorskip("benchmarks.original_sam2")
    from sam2.modeling.sam.transformer import RoPEAttention

    return RoPEAttention


def attention_twins(dtype=torch.float64, **changes):
    config = {"embedding_dim": DIM, "num_heads": 1, "feat_sizes": (4, 4)} | changes
    with precision(dtype):  # rotations are made here
        theirs = original()(**config)
    return twins(RoPEAttention(**config), theirs, dtype)


def queries_and_keys(dtype, n_keys, n_queries=16, kv_dim=DIM):
    return (
        random(2, n_queries, DIM, dtype=dtype, seed=1),
        random(2, n_keys, kv_dim, dtype=dtype, seed=2),
        random(2, n_keys, kv_dim, dtype=dtype, seed=3),
    )


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
@pytest.mark.parametrize("n_pointers", [0, 3])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_equals_the_original(config, n_pointers, dtype):
    """The original takes pointers only where several maps may come; one does."""
    ours, theirs = attention_twins(dtype, **config | {"rope_k_repeat": True})
    assert layout(ours) == layout(theirs)
    n_maps = 3 if config.get("rope_k_repeat") else 1
    given = queries_and_keys(dtype, n_maps * 16 + n_pointers, kv_dim=config.get("kv_in_dim", DIM))
    with precision(dtype):
        expected = theirs(*given, n_pointers)
    assert_close(ours(*given, n_pointers), expected)


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
def test_one_map_equals_the_original(dtype):
    ours, theirs = attention_twins(dtype)
    given = queries_and_keys(dtype, 16)
    with precision(dtype):
        expected = theirs(*given)
    assert_close(ours(*given), expected)


def test_only_places_relative_to_each_other_matter():
    """A pair's product stays the same when both move by the same cells."""
    rotation = axial_rotation(DIM, (4, 4), 100.0, torch.float64, torch.device("cpu"))
    q, k = random(2, DIM, dtype=torch.float64)[:, None].expand(-1, 16, -1)
    products = rotate(q, rotation) @ rotate(k, rotation).T
    products = products.reshape(4, 4, 4, 4)
    assert_close(products[1:, :3, 1:, :3], products[:3, 1:, :3, 1:])
    assert not torch.allclose(products[0, 0, 0, 1], products[0, 0, 1, 0])


def test_half_precision_is_turned_in_float32():
    rotation = axial_rotation(DIM, (4, 4), 10000.0, torch.float32, torch.device("cpu"))
    x = random(16, DIM).bfloat16()
    assert torch.equal(rotate(x, rotation), rotate(x.float(), rotation).bfloat16())


def test_a_rotation_made_in_inference_can_be_trained_with():
    ours, _ = attention_twins(torch.float32, rope_theta=77.0)  # one that no other test keeps
    given = queries_and_keys(torch.float32, 16)
    with torch.inference_mode():
        ours(*given)
    with torch.enable_grad():
        ours(*given).sum().backward()
    assert ours.q_proj.weight.grad is not None


@pytest.mark.parametrize(
    ("changes", "n_keys", "n_queries", "n_pointers", "message"),
    [
        ({}, 32, 16, 0, "32 keys are not the map of 16 queries"),
        ({}, 16, 16, 1, "15 keys are not the map of 16 queries"),
        ({"rope_k_repeat": True}, 20, 16, 3, "17 keys are not the maps of 16 queries"),
        ({}, 8, 8, 0, r"8 queries are neither \(4, 4\) nor a square map"),
    ],
)
def test_refuses_keys_and_queries_that_are_no_maps(changes, n_keys, n_queries, n_pointers, message):
    ours, _ = attention_twins(**changes)
    with pytest.raises(ValueError, match=message):
        ours(*queries_and_keys(torch.float64, n_keys, n_queries), n_pointers)


def test_channels_must_be_fours():
    with pytest.raises(ValueError, match="6 channels a head"):
        RoPEAttention(12, num_heads=2)
