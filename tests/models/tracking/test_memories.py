import dataclasses
import functools
import inspect
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from amg.models.tracking import memories
from amg.models.tracking.memories import Tokens, TrackingOptions
from amg.models.tracking.memory_bank import Moment, open_bank
from tests.models.parity import BOTH_DTYPES, assert_close, precision, random

pytest.importorskip("benchmarks.original_sam2")
from tests.models.small_sam2 import DIM, IMGSZ, MEMORY_DIM, SAM2_OPTIONS, SIDE, sam2_twins

N_FRAMES, BATCH = 12, 3
SIZE_HW = (SIDE, SIDE)
POINTER_OPTIONS = {
    "published 2.1": {},
    "published 2": SAM2_OPTIONS,
    "sines of the memories' width": {"proj_tpos_enc_in_obj_ptrs": False},
    "no pointers": {"use_obj_ptrs_in_encoder": False, "fixed_no_obj_ptr": False},
}


@functools.cache
def original(options="published 2.1", dtype=torch.float64):
    """The original model; tests leave it as it is."""
    return sam2_twins(dtype, **POINTER_OPTIONS[options])[1]


def options_of(base):
    """Ours, of the same names as its attributes."""
    names = [field.name for field in dataclasses.fields(TrackingOptions)]
    options = TrackingOptions(**{name: getattr(base, name) for name in names})
    return options.for_training() if base.training else options


def a_frame(dtype=torch.float64):
    """The coarsest features, and their positions."""
    shape = SIDE * SIDE, BATCH, DIM
    return Tokens(*(random(*shape, dtype=dtype, seed=seed) for seed in (200, 201)))


class Recorder(nn.Module):
    """A memory attention that only remembers what it was given."""

    def forward(self, curr, curr_pos, memory, memory_pos, num_obj_ptr_tokens):
        self.given = {
            "curr": curr[0] if isinstance(curr, list) else curr,
            "curr_pos": curr_pos[0] if isinstance(curr_pos, list) else curr_pos,
            "memory": memory,
            "memory_pos": memory_pos,
            "n_pointer_tokens": num_obj_ptr_tokens,
        }
        return self.given["curr"]


@pytest.mark.parametrize("options", POINTER_OPTIONS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_a_frame_remembers_equals_the_original(options, data):
    frames = st.integers(0, N_FRAMES - 1)
    outputs = {
        "cond_frame_outputs": remembered(data.draw(st.sets(frames, min_size=1))),
        "non_cond_frame_outputs": remembered(data.draw(st.sets(frames)), first_seed=1000),
    }
    moment = Moment(data.draw(frames), N_FRAMES, data.draw(st.booleans()))
    num_maskmem = data.draw(st.integers(1, 5))
    varied = {
        "num_maskmem": num_maskmem,
        "maskmem_tpos_enc": nn.Parameter(random(num_maskmem, 1, 1, MEMORY_DIM).double()),
        "memory_temporal_stride_for_eval": data.draw(st.integers(1, 3)),
        "max_cond_frames_in_attn": data.draw(st.sampled_from([-1, 2, 3])),
        "max_obj_ptrs_in_encoder": data.draw(st.integers(2, 2 * N_FRAMES)),
        "use_signed_tpos_enc_to_obj_ptrs": data.draw(st.booleans()),
        "only_obj_ptrs_in_the_past_for_eval": data.draw(st.booleans()),
        "training": data.draw(st.booleans()),
        "memory_attention": Recorder(),
    }
    base = original(options)
    with mock.patch.multiple(base, **varied):
        assert_remembers_the_same(base, moment, outputs)


def assert_remembers_the_same(base, moment, outputs):
    frame = a_frame()
    with precision(torch.float64):
        expected_map = base._prepare_memory_conditioned_features(
            moment.frame_idx,
            False,
            [frame.features],
            [frame.positions],
            [SIZE_HW],
            outputs,
            moment.num_frames,
            moment.track_in_reverse,
        )
    expected = base.memory_attention.given
    ours = condition(base, moment, outputs)
    assert torch.equal(memories.to_map(ours, SIZE_HW), expected_map)
    assert_all_close(base.memory_attention.given, expected)


def condition(base, moment, outputs):
    """Ours, with the original's parts."""
    options = options_of(base)
    return memories.condition_on_memories(
        a_frame(),
        open_bank(moment, outputs, options.max_cond_frames_in_attn),
        options,
        memory_attention=base.memory_attention,
        maskmem_tpos_enc=base.maskmem_tpos_enc,
        obj_ptr_tpos_proj=base.obj_ptr_tpos_proj,
    )


def assert_all_close(ours, theirs):
    assert ours.keys() == theirs.keys()
    for key, expected in theirs.items():
        if isinstance(expected, torch.Tensor):
            assert_close(ours[key], expected)
        else:
            assert ours[key] == expected


def remembered(frames, dtype=torch.float64, first_seed=0):
    """Each frame has values of its own."""
    shapes = (MEMORY_DIM, SIDE, SIDE), (MEMORY_DIM, SIDE, SIDE), (DIM,)
    outputs = {}
    for t in frames:
        seed = first_seed + 3 * t
        features, positions, pointer = (
            random(BATCH, *shape, seed=seed + i).to(dtype) for i, shape in enumerate(shapes)
        )
        outputs[t] = {
            "maskmem_features": features,
            "maskmem_pos_enc": [positions],
            "obj_ptr": pointer,
        }
    return outputs


def test_memories_may_be_kept_in_half_precision():
    outputs = {
        "cond_frame_outputs": remembered([0], torch.bfloat16),
        "non_cond_frame_outputs": remembered([1, 2], torch.bfloat16),
    }
    for kind in outputs.values():
        for output in kind.values():
            output["obj_ptr"] = output["obj_ptr"].double()
    base = original()
    with mock.patch.object(base, "memory_attention", Recorder()):
        assert_remembers_the_same(base, Moment(3, N_FRAMES), outputs)
        assert base.memory_attention.given["memory"].dtype == torch.float64


def test_a_video_may_have_one_frame_or_an_unknown_number():
    """In one of one frame, a pointer is as young as can be, not 0 / 0 old."""
    outputs = {"cond_frame_outputs": remembered([0]), "non_cond_frame_outputs": {}}
    base, given_positions = original(), []
    for n_frames in (1, 2, None):
        with mock.patch.object(base, "memory_attention", Recorder()):
            condition(base, Moment(0, n_frames), outputs)
            given_positions.append(base.memory_attention.given["memory_pos"])
    assert given_positions[0].isfinite().all()
    assert torch.equal(given_positions[0], given_positions[1])
    assert torch.equal(given_positions[0], given_positions[2])


def test_a_frame_without_a_memory_cannot_be_remembered():
    outputs = {"cond_frame_outputs": remembered([0]), "non_cond_frame_outputs": {}}
    outputs["cond_frame_outputs"][0] |= {"maskmem_features": None, "maskmem_pos_enc": None}
    with pytest.raises(ValueError, match="run_mem_encoder=False"):
        condition(original(), Moment(1, N_FRAMES), outputs)


@pytest.mark.parametrize("directly", [True, False])
def test_a_first_frame_equals_the_original(directly):
    """Attention to the token of no memory is only possible where memories are not narrowed."""
    base = original()
    frame = a_frame()
    varied = {
        "directly_add_no_mem_embed": directly,
        "mem_dim": DIM,
        "memory_attention": Recorder(),
    }
    with mock.patch.multiple(base, **varied), precision(torch.float64):
        expected_map = base._prepare_memory_conditioned_features(
            0, True, [frame.features], [frame.positions], [SIZE_HW], {}, N_FRAMES
        )
        recorder = base.memory_attention
        expected = getattr(recorder, "given", {})
        options = options_of(base)
    recorder.given = {}
    ours = memories.condition_on_nothing(
        frame,
        options,
        memory_attention=recorder,
        no_mem_embed=base.no_mem_embed,
        no_mem_pos_enc=base.no_mem_pos_enc,
    )
    assert_close(memories.to_map(ours, SIZE_HW), expected_map)
    assert bool(expected) != directly
    assert_all_close(recorder.given, expected)


MEMORY_OPTIONS = {
    "published": {},
    "no scale": {"sigmoid_scale_for_mem_enc": 1.0, "sigmoid_bias_for_mem_enc": 0.0},
    "binarized": {"binarize_mask_from_pts_for_mem_enc": True},
    "no overlap": {"non_overlap_masks_for_mem_enc": True},
    "no embedding": {"no_obj_embed_spatial": None},
}


@pytest.mark.parametrize("dtype", BOTH_DTYPES, ids=str)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("is_mask_from_pts", [False, True])
@pytest.mark.parametrize("changes", MEMORY_OPTIONS.values(), ids=MEMORY_OPTIONS)
def test_a_new_memory_equals_the_original(changes, is_mask_from_pts, training, dtype):
    base = original(dtype=dtype)
    features = a_frame(dtype).features
    masks = 5 * random(BATCH, 1, IMGSZ, IMGSZ, dtype=dtype)
    scores = torch.tensor([[0.5], [-0.5], [0.0]], dtype=dtype)
    with mock.patch.multiple(base, training=training, **changes):
        with precision(dtype):
            expected = base._encode_new_memory(
                [features], [SIZE_HW], masks, scores, is_mask_from_pts
            )
        ours = memories.encode_new_memory(
            memories.to_map(features, SIZE_HW),
            masks,
            scores,
            is_mask_from_pts,
            options_of(base),
            memory_encoder=base.memory_encoder,
            no_obj_embed_spatial=base.no_obj_embed_spatial,
        )
    assert_close(ours["vision_features"], expected[0])
    assert_close(ours["vision_pos_enc"][0], expected[1][0])


def test_one_object_overlaps_with_none():
    masks = 20 * random(1, 1, 4, 4)
    assert torch.equal(memories.without_overlaps(masks), masks)


@given(st.booleans(), st.integers(0, 4), st.integers(0, 2), st.integers(0, 3), st.booleans())
def test_multimask_equals_the_original(is_init, n_points, at_least, at_most, for_tracking):
    points = {"point_labels": torch.ones(BATCH, n_points)} if n_points else None
    base = original()
    varied = {
        "multimask_min_pt_num": at_least,
        "multimask_max_pt_num": at_most,
        "multimask_output_for_tracking": for_tracking,
    }
    with mock.patch.multiple(base, **varied):
        expected = base._use_multimask(is_init, points)
        assert options_of(base).is_multimask(is_init, n_points) == expected
        with mock.patch.object(base, "multimask_output_in_sam", False):
            assert not options_of(base).is_multimask(is_init, n_points)


def test_options_have_the_defaults_of_the_original():
    from sam2.modeling.sam2_base import SAM2Base

    published = inspect.signature(SAM2Base).parameters
    for field in dataclasses.fields(TrackingOptions):
        assert field.default == published[field.name].default, field.name
    with pytest.raises(ValueError, match="needs add_tpos_enc_to_obj_ptrs"):
        TrackingOptions(proj_tpos_enc_in_obj_ptrs=True, add_tpos_enc_to_obj_ptrs=False)
