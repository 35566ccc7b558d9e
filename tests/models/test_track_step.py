"""`track_step` over the frames of a video, against the original's own."""

import pytest
import torch
from parity import assert_close, random

pytest.importorskip("benchmarks.original_sam2")
from small_sam2 import IMGSZ, prompted_twins

N_OBJECTS, N_FRAMES = 3, 5
CLICKS = {
    "point_coords": torch.tensor([[[10.0, 20.0]], [[90.0, 30.0]], [[60.0, 110.0]]]),
    "point_labels": torch.ones(N_OBJECTS, 1, dtype=torch.int32),
}
TWO_CLICKS = {
    "point_coords": torch.cat([CLICKS["point_coords"], CLICKS["point_coords"] / 2 + 7], dim=1),
    "point_labels": torch.tensor([[1, 0], [1, 1], [2, 3]], dtype=torch.int32),
}
SAM2 = {
    "no_obj_embed_spatial": False,
    "add_tpos_enc_to_obj_ptrs": False,
    "proj_tpos_enc_in_obj_ptrs": False,
    "use_signed_tpos_enc_to_obj_ptrs": False,
}
MODELS = {
    "2.1": {},
    "2": SAM2,
    "masks through the decoder": {"use_mask_input_as_output_without_sam": False},
    "no pointers": {"use_obj_ptrs_in_encoder": False, "pred_obj_scores": False}
    | {"fixed_no_obj_ptr": False},
    "soft pointers": {"soft_no_obj_ptr": True, "fixed_no_obj_ptr": False},
    "one mask": {"multimask_output_in_sam": False},
    "binary memories apart": {
        "binarize_mask_from_pts_for_mem_enc": True,
        "non_overlap_masks_for_mem_enc": True,
    },
    "no memory": {"num_maskmem": 0},
}


def a_mask():
    """One object has none: it is not in the frame."""
    mask = torch.zeros(N_OBJECTS, 1, IMGSZ, IMGSZ)
    mask[0, :, 20:60, 30:90] = mask[1, :, 70:100, 5:40] = 1.0
    return mask


def twins(**changes):
    """Their objects are about as often absent as present, which random weights do not bring."""
    pair = prompted_twins(**changes)
    if changes.get("pred_obj_scores", True):
        frame = prepare(pair[1])[0]
        score = pair[1].track_step(0, True, *frame, CLICKS, None, empty(), N_FRAMES)
        middle = score["object_score_logits"].median()
        for model in pair:
            model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias -= middle - 1e-3
    return pair


def empty():
    return {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}


def prepare(model, n_frames=N_FRAMES):
    """The features of some frames, as the original hands them to `track_step`."""
    frames = []
    for image in random(n_frames, 1, 3, IMGSZ, IMGSZ):
        _, features, positions, sizes = model._prepare_backbone_features(model.forward_image(image))
        each = [[level.expand(-1, N_OBJECTS, -1) for level in x] for x in (features, positions)]
        frames.append((*each, sizes))
    return frames


def track(model, frames, prompts, order=None, **options):
    """The outputs of all frames; prompts: {frame: (points, masks)}, the first of them initial."""
    order = list(range(len(frames))) if order is None else order
    outputs = empty()
    for t in order:
        points, masks = prompts.get(t, (None, None))
        kind = "cond_frame_outputs" if t in prompts else "non_cond_frame_outputs"
        is_init = t == order[0]
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


@pytest.mark.parametrize("video", VIDEOS)
@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS)
def test_frames_equal_the_originals(changes, video):
    ours, theirs = twins(**changes)
    frames = prepare(theirs)
    result, expected = (track(model, frames, VIDEOS[video]) for model in (ours, theirs))
    assert_same(result, expected)


@pytest.mark.parametrize("video", ["a click", "a mask"])
def test_backwards(video):
    ours, theirs = twins()
    frames, prompts = prepare(theirs), {N_FRAMES - 1: VIDEOS[video][0]}
    order = list(range(N_FRAMES))[::-1]
    result, expected = (
        track(model, frames, prompts, order, track_in_reverse=True) for model in (ours, theirs)
    )
    assert_same(result, expected)


def test_an_answer_is_corrected_without_being_remembered():
    ours, theirs = twins()
    (frame,) = prepare(theirs, 1)
    results = []
    for model in (ours, theirs):
        first = model.track_step(0, True, *frame, CLICKS, None, empty(), 1, run_mem_encoder=False)
        assert first["maskmem_features"] is None
        logits = first["pred_masks"].clamp(-32, 32)
        results.append(
            model.track_step(
                0, True, *frame, TWO_CLICKS, None, empty(), 1, prev_sam_mask_logits=logits
            )
        )
    for name, expected in results[1].items():
        assert_same_value(results[0][name], expected)


def test_objects_are_present_and_absent():
    """Else the comparisons would not show what is done with either."""
    _, theirs = twins()
    outputs = track(theirs, prepare(theirs), VIDEOS["a click"])
    scores = torch.cat(
        [frame["object_score_logits"] for kind in outputs.values() for frame in kind.values()]
    )
    assert 0 < int((scores > 0).sum()) < len(scores)


def test_a_model_of_images_says_that_it_cannot():
    ours, theirs = prompted_twins()
    for part in ours.optional_parts:
        setattr(ours, part, None)
    (frame,) = prepare(theirs, 1)
    with pytest.raises(ValueError, match="without its memory"):
        ours.track_step(0, True, *frame, CLICKS, None, empty(), 1)
