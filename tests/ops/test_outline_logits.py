"""What is left of waiting logits gives the very same masks."""

import numpy as np
import pytest
import torch
from low_res import FRAMES, make_clear_logits, make_logits, make_resampling

from amg.ops import full_size_numba
from amg.ops.outline_logits import keep_outline_logits


def _odd_values(n_low):
    """Blobs with infinities and NaN strewn over them."""
    logits = make_logits(n_low, seed=1)
    rng = torch.Generator().manual_seed(2)
    for value in (float("inf"), float("-inf"), float("nan")):
        logits[torch.rand(logits.shape, generator=rng) < 0.01] = value
    return logits


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.3, 1e9])
@pytest.mark.parametrize("make", [make_logits, _odd_values])
def test_masks_are_the_same_to_the_bit(frame, threshold, make):
    logits, resampling = make(frame[0]), make_resampling(*frame)
    place = resampling, threshold, (2, 1), (frame[3][0] + 1, frame[3][1] + 5)
    kept = keep_outline_logits(logits, threshold)
    expected = full_size_numba.encode_masks(logits, *place)
    assert full_size_numba.encode_masks(kept[torch.arange(len(logits))], *place) == expected
    some = torch.tensor([5, 0, 5, 11])
    assert full_size_numba.encode_masks(kept[some], *place) == [expected[i] for i in some.tolist()]


def test_windows_on_both_sides_keep_their_values():
    """All values of a window that has some above the threshold and some not; no others."""
    rng = np.random.default_rng(0)
    for shape in ((3, 3), (5, 4), (20, 31)):
        for share in (0.02, 0.5, 0.98):
            values = rng.random(shape, np.float32)
            above = values > share
            near = np.zeros(shape, bool)
            for y in range(shape[0] - 2):
                for x in range(shape[1] - 2):
                    window = np.s_[y : y + 3, x : x + 3]
                    near[window] |= 0 < above[window].sum() < 9
            (found,) = keep_outline_logits(torch.from_numpy(values)[None], share)[torch.tensor([0])]
            expected = np.where(near, values, np.where(above, np.inf, -np.inf))
            assert np.array_equal(found, expected.astype(np.float32))


def test_it_takes_a_fraction_of_the_memory():
    logits = make_clear_logits(256)[:8]  # blobs, and noise along their outlines
    kept = keep_outline_logits(logits, 0.0)
    assert len(kept) == 8
    assert kept.nbytes < logits.nbytes / 5


def test_none_and_views(set_threads):
    set_threads(2)
    kept = keep_outline_logits(torch.zeros(0, 28, 28), 0.0)
    assert (len(kept), kept.nbytes, kept[torch.arange(0)].shape) == (0, 0, (0, 28, 28))
    logits = make_logits(28)
    view = logits.transpose(1, 2)[::2]
    index = torch.arange(len(view))
    same = keep_outline_logits(view.contiguous(), 0.0)[index]
    assert torch.equal(keep_outline_logits(view, 0.0)[index], same)
