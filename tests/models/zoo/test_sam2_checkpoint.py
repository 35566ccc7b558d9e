"""SAM 2's files: the published layout, and that of transformers with and without its memory."""

import pytest
import torch
from transformers import Sam2Config, Sam2Model, Sam2VideoConfig, Sam2VideoModel

from tests.models.parity import assert_close, decode_all, layout, random, randomise

pytest.importorskip("benchmarks.original_sam2")
from amg.errors import CheckpointError
from amg.models.interface import Frame
from amg.models.zoo.checkpoint import load_weights, save_weights
from amg.models.zoo.load import build_model
from amg.models.zoo.registry import MODELS
from amg.models.zoo.transformers_keys import to_published_layout
from tests.models.small_sam2 import DIM, IMGSZ, instantiate_ours, sam2_twins, small_config

THEIR_MEMORY_DIM = 64  # transformers' memory attention has it built in
VIDEO_ONLY = ("memory_", "maskmem_", "no_mem_pos", "no_obj", "mask_downsample", "obj_ptr")
POINTS_XY = [[10.0, 20.0], [50.0, 7.0], [100.0, 120.0]]


def our_model(**changes):
    return instantiate_ours(small_config(**changes)).eval()


@pytest.fixture
def original():
    return sam2_twins()[1]


@pytest.fixture
def saved(tmp_path):
    def save(state, name="weights.pt"):
        torch.save(state, path := tmp_path / name)
        return path

    return save


def small_vision():
    return {
        "backbone_config": {
            "model_type": "sam2_hiera_det_model",
            "hidden_size": 8,
            "num_attention_heads": 1,
            "image_size": [IMGSZ, IMGSZ],
            "blocks_per_stage": [1, 2, 3, 1],
            "embed_dim_per_stage": [8, 16, 32, 64],
            "num_attention_heads_per_stage": [1, 2, 4, 8],
            "window_size_per_stage": [8, 4, 6, 3],
            "global_attention_blocks": [4],
            "window_positional_embedding_background_size": [5, 5],
        },
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[IMGSZ // n] * 2 for n in (4, 8, 16)],
        "fpn_hidden_size": DIM,
    }


def transformers_sam2(model=Sam2Model, config=Sam2Config, **options):
    sizes = config(
        vision_config=small_vision(),
        prompt_encoder_config={"hidden_size": DIM, "image_size": IMGSZ},
        mask_decoder_config={"hidden_size": DIM},
        **options,
    )
    theirs = randomise(model(sizes).eval())
    # One matrix of the published model, which is two here.
    positions = theirs.shared_image_embedding.positional_embedding
    theirs.prompt_encoder.shared_embedding.positional_embedding.copy_(positions)
    return theirs


def transformers_video():
    return transformers_sam2(
        Sam2VideoModel,
        Sam2VideoConfig,
        image_size=IMGSZ,
        memory_attention_hidden_size=DIM,
        memory_attention_num_layers=2,
        memory_attention_feed_forward_hidden_size=48,
        memory_attention_rope_feat_sizes=[IMGSZ // 16, IMGSZ // 16],
        memory_encoder_hidden_size=DIM,
        memory_encoder_output_channels=THEIR_MEMORY_DIM,
        mask_downsampler_embed_dim=DIM,
        memory_fuser_embed_dim=DIM,
        memory_fuser_intermediate_dim=4 * DIM,
    )


# --- published ------------------------------------------------------------------------------------


def test_published_layout_loads(saved, original):
    ours = our_model()
    load_weights(ours, saved({"model": original.state_dict()}))
    expected = original.state_dict()
    assert ours.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in ours.state_dict().items())


@pytest.mark.parametrize("extra", [True, False])
def test_a_key_too_many_or_too_few_is_refused(saved, original, extra):
    state = dict(original.state_dict())
    if extra:
        state["elsewhere"] = torch.zeros(1)
    else:
        del state["memory_encoder.out_proj.bias"]
    ours = our_model()
    before = {key: tensor.clone() for key, tensor in ours.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"1 keys (unexpected|missing)"):
        load_weights(ours, saved({"model": state}))
    assert all(torch.equal(tensor, before[key]) for key, tensor in ours.state_dict().items())


def test_the_other_generations_file_is_refused(saved):
    """The later one has keys that the earlier has not."""
    earlier = {
        "no_obj_embed_spatial": False,
        "add_tpos_enc_to_obj_ptrs": False,
        "proj_tpos_enc_in_obj_ptrs": False,
    }
    later = sam2_twins()[0]
    path = saved({"model": later.state_dict()})
    with pytest.raises(CheckpointError, match=r"3 keys unexpected .*no_obj_embed_spatial"):
        load_weights(our_model(**earlier), path)


def test_a_file_without_the_memory_makes_a_model_of_images(saved, original, tmp_path):
    state = {k: t for k, t in original.state_dict().items() if not k.startswith(VIDEO_ONLY)}
    assert 0 < len(state) < len(original.state_dict())
    ours = our_model()
    load_weights(ours, saved({"model": state}))
    assert ours.memory_attention is None
    assert ours.memory_encoder is None
    assert ours.state_dict().keys() == state.keys()
    save_weights(ours, tmp_path / "again.safetensors")
    again = our_model()
    load_weights(again, tmp_path / "again.safetensors")
    assert all(torch.equal(tensor, state[key]) for key, tensor in again.state_dict().items())


# --- transformers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [transformers_sam2, transformers_video])
def test_transformers_layout_gives_its_outputs(tmp_path, build):
    theirs = build()
    theirs.save_pretrained(tmp_path)
    ours = our_model(memory_dim=THEIR_MEMORY_DIM)
    load_weights(ours, tmp_path / "model.safetensors")
    assert (ours.memory_encoder is None) == (build is transformers_sam2)

    image = Sam2Model(theirs.config) if build is transformers_video else theirs
    image.load_state_dict(theirs.state_dict(), strict=False)
    image.eval()
    pixels = random(1, 3, IMGSZ, IMGSZ)
    points = torch.tensor(POINTS_XY)
    labels = torch.ones(1, len(points), 1, dtype=torch.int64)
    (features,) = ours.encode(pixels)
    frame = Frame((IMGSZ, IMGSZ), (IMGSZ, IMGSZ), (IMGSZ, IMGSZ))
    for multimask_output in (True, False):
        expected = image(
            pixel_values=pixels,
            input_points=points[None, :, None],
            input_labels=labels,
            multimask_output=multimask_output,
        )
        candidates = decode_all(
            ours, features, frame, points.double().numpy(), 0.0, multimask_output=multimask_output
        )
        assert_close(candidates.logits, expected.pred_masks[0].flatten(0, 1))
        assert_close(candidates.predicted_iou, expected.iou_scores[0].flatten())


def test_every_key_of_transformers_is_renamed():
    """At full size too: of the tiny model of 2.1, which is the default of its configuration."""
    with torch.device("meta"):
        theirs = Sam2VideoModel(Sam2VideoConfig())
        ours = build_model(MODELS["sam2.1_hiera_t"])
    # Meta tensors hold nothing to compare, and one matrix comes under two names.
    state = theirs.state_dict()
    del state["prompt_encoder.shared_embedding.positional_embedding"]
    published = to_published_layout(state)
    assert {key: tuple(tensor.shape) for key, tensor in published.items()} == layout(ours)
