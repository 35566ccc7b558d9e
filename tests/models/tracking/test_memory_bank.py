import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from amg.models.tracking.memory_bank import Moment, closest_cond_frames, open_bank


def memory(frame_idx):
    features = torch.full((1, 1, 1, 1), float(frame_idx))
    return {
        "maskmem_features": features,
        "maskmem_pos_enc": [features],
        "obj_ptr": torch.full((1, 1), float(frame_idx)),
    }


def outputs(conditioning, others):
    return {
        "cond_frame_outputs": {t: memory(t) for t in conditioning},
        "non_cond_frame_outputs": {t: memory(t) for t in others},
    }


def slots(bank, *arguments):
    return [(slot, int(out["obj_ptr"])) for slot, out in bank.frames(*arguments)]


def ages(bank, *arguments):
    return [(age, int(pointer)) for age, pointer in bank.pointers(*arguments)]


@given(
    st.lists(st.integers(0, 20), unique=True), st.integers(0, 20), st.sampled_from([-1, 2, 3, 5])
)
def test_closest_conditioning_frames_equal_the_original(frames, frame_idx, max_frames):
    pytest.importorskip("benchmarks.original_sam2")
    from sam2.modeling.sam2_utils import select_closest_cond_frames

    chosen, rest = select_closest_cond_frames(frame_idx, dict.fromkeys(frames), max_frames)
    ours = closest_cond_frames(frames, frame_idx, max_frames)
    assert ours == list(chosen)
    assert {*frames} - {*ours} == {*rest}


def test_a_limit_must_leave_room_for_both_sides():
    assert closest_cond_frames([3], 5, 1) == [3]
    with pytest.raises(ValueError, match="max_cond_frames_in_attn=1"):
        closest_cond_frames([3, 7], 5, 1)


@pytest.mark.parametrize(
    ("moment", "n_frames", "stride", "expected"),
    [
        (Moment(10), 0, 1, []),
        (Moment(10), 3, 1, [9, 8, 7]),
        (Moment(10), 4, 3, [9, 6, 3, 0]),
        (Moment(11), 3, 3, [10, 9, 6]),
        (Moment(10, track_in_reverse=True), 3, 1, [11, 12, 13]),
        (Moment(10, track_in_reverse=True), 3, 3, [11, 12, 15]),
        (Moment(11, track_in_reverse=True), 3, 3, [12, 15, 18]),
    ],
)
def test_earlier_frames(moment, n_frames, stride, expected):
    assert moment.earlier(n_frames, stride) == expected
    assert all(moment.elapsed(t) > 0 for t in expected)


def test_frames_have_slots_by_their_distance_and_conditioning_frames_the_last():
    bank = open_bank(Moment(9), outputs([0, 20], range(1, 9)))
    assert slots(bank, 4) == [(3, 0), (3, 20), (2, 6), (1, 7), (0, 8)]
    assert slots(bank, 4, 3) == [(3, 0), (3, 20), (2, 3), (1, 6), (0, 8)]
    assert slots(bank, 1) == [(0, 0), (0, 20)]


def test_missing_frames_leave_their_slots_empty():
    bank = open_bank(Moment(5), outputs([0], [2, 4]))
    assert slots(bank, 7) == [(6, 0), (2, 2), (0, 4)]


def test_conditioning_frames_that_were_not_chosen_are_like_any_other():
    bank = open_bank(Moment(9), outputs([1, 6, 8, 12], [7]), max_cond_frames=2)
    assert slots(bank, 4) == [(3, 8), (3, 12), (2, 6), (1, 7)]
    assert ages(bank, 9) == [(1, 8), (3, 12), (2, 7), (3, 6), (8, 1)]


@pytest.mark.parametrize(
    ("reverse", "signed", "only_past", "expected"),
    [
        (False, False, False, [(5, 0), (2, 7), (1, 4), (2, 3)]),
        (False, True, False, [(5, 0), (-2, 7), (1, 4), (2, 3)]),
        (False, True, True, [(5, 0), (1, 4), (2, 3)]),
        (True, True, False, [(-5, 0), (2, 7), (1, 6)]),
        (True, False, True, [(2, 7), (1, 6)]),
    ],
)
def test_pointers_have_ages(reverse, signed, only_past, expected):
    bank = open_bank(Moment(5, track_in_reverse=reverse), outputs([0, 7], [2, 3, 4, 6]))
    assert ages(bank, 3, signed, only_past) == expected


def test_a_frame_cannot_be_tracked_from_nothing():
    with pytest.raises(ValueError, match="frame 3 has no conditioning frame"):
        open_bank(Moment(3), outputs([], [1, 2]))
