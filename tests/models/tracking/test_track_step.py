"""`track_step` over the frames of a video, against the original's own.

In float64: the logits of absent objects are so large that float32's tolerance would hide the rest.
"""

from contextlib import nullcontext
from functools import cache

import pytest
import torch

from amg.models.families.sam2 import SAM2Model
from tests.models.parity import assert_close, oracle_in_float64, random

pytest.importorskip("benchmarks.original_sam2")
from tests.models.small_sam2 import IMGSZ, SAM2_OPTIONS, prompted_twins

N_OBJECTS, N_FRAMES = 3, 5
CLICKS = {
    "point_coords": torch.tensor([[[10.0, 20.0]], [[90.0, 30.0]], [[60.0, 110.0]]]).double(),
    "point_labels": torch.ones(N_OBJECTS, 1, dtype=torch.int32),
}
TWO_CLICKS = {
    "point_coords": torch.cat([CLICKS["point_coords"], CLICKS["point_coords"] / 2 + 7], dim=1),
    "point_labels": torch.tensor([[1, 0], [1, 1], [2, 3]], dtype=torch.int32),
}
MODELS = {
    "2.1": {},
    "2": SAM2_OPTIONS,
    "masks through the decoder": {"use_mask_input_as_output_without_sam": False},
    "no pointers": {"use_obj_ptrs_in_encoder": False, "pred_obj_scores": False}
    | {"fixed_no_obj_ptr": False},
    "soft pointers": {"soft_no_obj_ptr": True, "fixed_no_obj_ptr": False},
    "linear pointers to the first mask": {
        "use_multimask_token_for_obj_ptr": False,
        "use_mlp_for_obj_ptr_proj": False,
    },
    "one mask": {"multimask_output_in_sam": False},
    "binary memories apart": {
        "binarize_mask_from_pts_for_mem_enc": True,
        "non_overlap_masks_for_mem_enc": True,
    },
    "no memory": {"num_maskmem": 0},
}


def a_mask():
    """One object has none: it is not in the frame."""
    mask = torch.zeros(N_OBJECTS, 1, IMGSZ, IMGSZ, dtype=torch.float64)
    mask[0, :, 20:60, 30:90] = mask[1, :, 70:100, 5:40] = 1.0
    return mask


def twins(**changes):
    """Their objects are about as often absent as present, which random weights do not bring."""
    pair = prompted_twins(dtype=torch.float64, **changes)
    if changes.get("pred_obj_scores", True):
        frames = prepare(pair[1], 1)
        (answer,) = track(pair[1], frames, VIDEOS["a click"])["cond_frame_outputs"].values()
        middle = answer["object_score_logits"].median()
        for model in pair:
            model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias -= middle - 1e-3
    return pair


def empty():
    return {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}


def in_float64(model):
    """Where a model computes: the original would round to float32."""
    return nullcontext() if isinstance(model, SAM2Model) else oracle_in_float64()


def prepare(original, n_frames=N_FRAMES):
    """The features of some frames, as the original hands them to `track_step`."""
    frames = []
    for image in random(n_frames, 1, 3, IMGSZ, IMGSZ, dtype=torch.float64):
        with in_float64(original):
            encoded = original.forward_image(image)
        _, features, positions, sizes = original._prepare_backbone_features(encoded)
        each = [[level.expand(-1, N_OBJECTS, -1) for level in x] for x in (features, positions)]
        frames.append((*each, sizes))
    return frames


def track(model, frames, prompts, order=None, outputs=None, **options):
    """The outputs of all frames; prompts: {frame: (points, masks)}, the first of them initial."""
    outputs = empty() if outputs is None else outputs
    for t in range(len(frames)) if order is None else order:
        points, masks = prompts.get(t, (None, None))
        kind = "cond_frame_outputs" if t in prompts else "non_cond_frame_outputs"
        is_init = not outputs["cond_frame_outputs"]
        with in_float64(model):
            outputs[kind][t] = model.track_step(
                t, is_init, *frames[t], points, masks, outputs, len(frames), **options
            )
    return outputs


def assert_same(ours, theirs):
    for kind, frames in theirs.items():
        assert ours[kind].keys() == frames.keys()
        for t, frame in frames.items():
            assert ours[kind][t].keys() == frame.keys()
            for name, expected in frame.items():
                assert_same_value(ours[kind][t][name], expected)


def assert_same_value(mine, expected):
    if isinstance(expected, list):
        for a, b in zip(mine, expected, strict=True):
            assert_same_value(a, b)
    elif isinstance(expected, torch.Tensor) and expected.any():
        assert_close(mine, expected)
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(mine, expected)
    else:
        assert mine is expected


VIDEOS = {
    "a click": {0: (CLICKS, None)},
    "clicks": {0: (TWO_CLICKS, None)},
    "a mask": {0: (None, a_mask())},
    "a click, and a mask later": {0: (CLICKS, None), 3: (None, a_mask())},
    "nothing but the frame": {0: (None, None)},
}


@cache
def with_frames(model):
    """One of `MODELS`, ours and the original's, and a video's features; tests change nothing."""
    pair = twins(**MODELS[model])
    return pair, prepare(pair[1])


@pytest.mark.parametrize("video", VIDEOS)
@pytest.mark.parametrize("model", MODELS)
def test_frames_equal_the_originals(model, video):
    (ours, theirs), frames = with_frames(model)
    result, expected = (track(model, frames, VIDEOS[video]) for model in (ours, theirs))
    assert_same(result, expected)


@pytest.mark.parametrize("video", ["a click", "a mask"])
def test_backwards(video):
    ((ours, theirs), frames), prompts = with_frames("2.1"), {N_FRAMES - 1: VIDEOS[video][0]}
    order = list(range(N_FRAMES))[::-1]
    result, expected = (
        track(model, frames, prompts, order, track_in_reverse=True) for model in (ours, theirs)
    )
    assert_same(result, expected)


@pytest.mark.parametrize("changes", [{}, SAM2_OPTIONS], ids=["2.1", "2"])
def test_prompts_first_then_both_directions(changes):
    """More frames are prompted than may be remembered as such, and not all of the others are."""
    ours, theirs = twins(max_cond_frames_in_attn=2, memory_temporal_stride_for_eval=2, **changes)
    frames, results = prepare(theirs, 9), []
    prompts = {2: (None, a_mask()), 5: (CLICKS, None), 7: (TWO_CLICKS, None)}
    for model in (ours, theirs):
        outputs = track(model, frames, prompts, [*prompts, 3, 4, 6, 8])
        results.append(track(model, frames, {}, [1, 0], outputs, track_in_reverse=True))
    assert_same(*results)


def test_an_answer_is_corrected_without_being_remembered():
    ((ours, theirs), frames), results = with_frames("2.1"), []
    for model in (ours, theirs):
        first = track(model, frames[:1], {0: (CLICKS, None)}, run_mem_encoder=False)
        answer = first["cond_frame_outputs"][0]
        assert answer["maskmem_features"] is None
        logits = answer["pred_masks"].clamp(-32, 32)
        results.append(
            track(model, frames[:1], {0: (TWO_CLICKS, None)}, prev_sam_mask_logits=logits)
        )
    assert_same(*results)


def test_objects_are_present_and_absent():
    """Else the comparisons would not show what is done with either, or with the best of masks."""
    (_, theirs), frames = with_frames("2.1")
    best = []
    hook = theirs.sam_mask_decoder.register_forward_hook(
        lambda module, args, output: best.append(output[1].argmax(dim=1))
    )
    with hook:
        outputs = track(theirs, frames, VIDEOS["a click"])
    scores = torch.cat(
        [frame["object_score_logits"] for kind in outputs.values() for frame in kind.values()]
    )
    assert 0 < int((scores > 0).sum()) < len(scores)
    assert len(torch.cat(best).unique()) > 1


@pytest.mark.parametrize("prompt", ["a click", "a mask"])
@pytest.mark.parametrize("run_mem_encoder", [True, False])
def test_a_model_of_images_says_that_it_cannot(run_mem_encoder, prompt):
    ours, theirs = twins()
    for part in ours.optional_parts:
        setattr(ours, part, None)
    with pytest.raises(ValueError, match="without its memory"):
        track(ours, prepare(theirs, 1), VIDEOS[prompt], run_mem_encoder=run_mem_encoder)


@pytest.mark.parametrize("prompt", ["a mask", "nothing but the frame"])
def test_only_points_correct_an_answer(prompt):
    (ours, _), frames = with_frames("2.1")
    with pytest.raises(ValueError, match="prev_sam_mask_logits needs point_inputs alone"):
        track(ours, frames[:1], VIDEOS[prompt], prev_sam_mask_logits=a_mask())


def test_a_mask_prompt_may_be_of_any_type():
    """Through the decoder too, which has the model's type."""
    (ours, _), frames = with_frames("masks through the decoder")
    results = [track(ours, frames[:1], {0: (None, m)}) for m in (a_mask().bool(), a_mask())]
    for outputs in results:
        outputs["cond_frame_outputs"][0].pop("mask_inputs")
    assert_same(*results)
