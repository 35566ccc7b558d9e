import pytest
import torch
from transformers.models.sam2_video.configuration_sam2_video import Sam2VideoConfig
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoMemoryAttention

from amg.models.modules.memory_attention import MemoryAttention, MemoryAttentionLayer
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
from benchmarks.original_sam2 import instantiate, published_config
from tests.models.small_sam2 import DIM, MEMORY_DIM, SIDE, instantiate_ours, small_config

BATCH = 2
LAYERS = {
    "published": {},
    "gelu": {"activation": "gelu"},
    "positions in itself": {"pos_enc_at_attn": True},
    "positions of queries": {"pos_enc_at_cross_attn_queries": True},
    "no positions": {"pos_enc_at_cross_attn_keys": False},
}
# Maps of memories, and object pointers after them.
MEMORIES = [(1, 0), (3, 0), (2, 5), (0, 4)]


def config_of(layer=None, heads=1, memory_dim=MEMORY_DIM, **changes):
    """The published one made small, with changes of a layer's options and of the whole's."""
    config = small_config(memory_dim)["memory_attention"]
    config["layer"] |= layer or {}
    for name in ("self_attention", "cross_attention"):
        config["layer"][name]["num_heads"] = heads
    return config | changes


def attention_twins(config, dtype=torch.float64):
    with precision(dtype):  # rotations are made here
        theirs = instantiate(config)
    return twins(instantiate_ours(config), theirs, dtype)


def video(dtype, n_maps=2, n_pointers=3, side=SIDE, dim=MEMORY_DIM, batch=BATCH):
    """Tokens of a frame and of memories, and their positions, all sequence first."""
    n_memories = n_maps * side * side + n_pointers
    shapes = (side * side, DIM), (n_memories, dim)
    curr, memory = (random(n, batch, c, dtype=dtype, seed=c) for n, c in shapes)
    curr_pos, memory_pos = (random(n, batch, c, dtype=dtype, seed=50 + c) for n, c in shapes)
    return {
        "curr": curr,
        "memory": memory,
        "curr_pos": curr_pos,
        "memory_pos": memory_pos,
        "num_obj_ptr_tokens": n_pointers,
    }


def assert_same(ours, theirs, given, dtype):
    with precision(dtype):
        expected = theirs(**given)
    assert_close(ours(**given), expected)


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize(("n_maps", "n_pointers"), MEMORIES)
def test_equals_the_original(n_maps, n_pointers, layer, dtype):
    ours, theirs = attention_twins(config_of(layer), dtype)
    assert layout(ours) == layout(theirs)
    assert_same(ours, theirs, video(dtype, n_maps, n_pointers), dtype)


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
@pytest.mark.parametrize(
    "changes",
    [{"pos_enc_at_input": False}, {"num_layers": 1}, {"heads": 2}, {"heads": 4}],
    ids=str,
)
def test_other_configurations_equal_the_original(changes, dtype):
    ours, theirs = attention_twins(config_of(**changes), dtype)
    assert_same(ours, theirs, video(dtype), dtype)


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
@pytest.mark.parametrize("side", [SIDE, 2, 5])
def test_rotations_follow_the_size_of_the_input(side, dtype):
    ours, theirs = attention_twins(config_of(), dtype)
    for each_side in (side, SIDE, side):
        assert_same(ours, theirs, video(dtype, side=each_side), dtype)


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
def test_dropout_in_training_equals_the_original(dtype):
    ours, theirs = attention_twins(config_of(), dtype)
    given, results = video(dtype), []
    for module in (ours, theirs):
        torch.manual_seed(3)
        with precision(dtype if module is theirs else torch.float32):
            results.append(module.train()(**given))
    assert_close(*results)


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
def test_levels_may_be_lists_of_one(dtype):
    ours, theirs = attention_twins(config_of(), dtype)
    given = video(dtype)
    assert_same(ours, theirs, given | {key: [given[key]] for key in ("curr", "curr_pos")}, dtype)


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
def test_layers_may_want_what_comes_as_it_comes(dtype):
    """The layers then take the first axis for the batch: a map of 2 x 2 cells, 64 times."""
    ours, theirs = attention_twins(config_of(batch_first=False), dtype)
    assert_same(ours, theirs, video(dtype, 1, 0, batch=4), dtype)


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
@pytest.mark.parametrize(("n_maps", "n_pointers"), MEMORIES)
def test_equals_transformers(n_maps, n_pointers, dtype):
    config = Sam2VideoConfig(
        memory_attention_hidden_size=DIM,
        memory_attention_num_layers=2,
        memory_attention_feed_forward_hidden_size=48,
        memory_attention_rope_feat_sizes=[SIDE, SIDE],
        attn_implementation="sdpa",  # the eager one takes the softmax in float32
    )
    ours = instantiate_ours(config_of(memory_dim=64))
    with precision(dtype):
        theirs = Sam2VideoMemoryAttention(config)
    ours, theirs = twins(ours, theirs, dtype, from_transformers("memory_attention", sam2=True))
    given = video(dtype, n_maps, n_pointers, dim=64)
    with precision(dtype):
        expected = theirs(*given.values())
    assert_close(ours(**given), expected[0].transpose(0, 1))


def test_positions_may_be_left_out():
    """What the original needs them for, without using them, is a transposition."""
    config = config_of({"pos_enc_at_cross_attn_keys": False}, pos_enc_at_input=False)
    ours, _ = attention_twins(config)
    given = video(torch.float64)
    without = {key: x for key, x in given.items() if not key.endswith("pos")}
    assert torch.equal(ours(**without), ours(**given))


def test_full_width_equals_the_original():
    ours = MemoryAttention(256, True, MemoryAttentionLayer(), num_layers=4)
    theirs = instantiate(published_config("sam2.1_hiera_l")["memory_attention"])
    ours, theirs = twins(ours, theirs)
    n_cells, n_pointers = 64, 8
    given = {
        "curr": random(n_cells, 1, 256, seed=1),
        "memory": random(2 * n_cells + n_pointers, 1, 64, seed=2),
        "curr_pos": random(n_cells, 1, 256, seed=3),
        "memory_pos": random(2 * n_cells + n_pointers, 1, 64, seed=4),
        "num_obj_ptr_tokens": n_pointers,
    }
    assert_close(ours(**given), theirs(**given))


def test_refuses_an_unknown_activation_and_other_batches():
    with pytest.raises(ValueError, match="activation='glu'"):
        MemoryAttentionLayer(activation="glu")
    ours, _ = attention_twins(config_of())
    given = video(torch.float64)
    with pytest.raises(ValueError, match="2 frames, but memories of 1"):
        ours(**given | {"memory": given["memory"][:, :1]})
