"""The one pass over low-res logits against what it replaces, step by step."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from low_res import (
    FRAMES,
    OFFSET,
    SAMS_FRAME,
    THRESHOLD,
    assert_boxes_of_runs,
    assert_of_full_masks,
    decode_all,
    make_clear_logits,
    make_logits,
    make_resampling,
    resample,
    upsample,
)

from amg.ops import full_size_numba, rle
from amg.ops.resample import bilinear_taps


@pytest.mark.parametrize("frame", [*FRAMES, SAMS_FRAME])
def test_taps_are_the_two_resizes(frame):
    resampling = make_resampling(*frame)
    logits = make_logits(frame[0])[::6]
    found = resample(logits, resampling)
    torch.testing.assert_close(found, upsample(logits, *frame[1:]), rtol=0, atol=2e-5)


def test_any_size_takes_three_taps():
    rng = np.random.default_rng(0)
    for n_low, most, n in ((28, 750, 300), (112, 3000, 20)):
        for kept, size in rng.integers(1, [[4 * n_low + 1, most]] * n):
            axis = bilinear_taps(n_low, 4 * n_low, int(kept), int(size))
            np.testing.assert_allclose(axis.weights.sum(1), 1, atol=1e-6)
            assert axis.edges[-1] == size == axis.size


def test_a_first_step_that_shrinks_is_refused():
    with pytest.raises(ValueError, match="must be 3 or more, and grow"):
        bilinear_taps(256, 128, 128, 300)


@pytest.mark.parametrize(
    ("frame", "n_threads"), [(frame, n) for frame in FRAMES for n in (1, 2)] + [(SAMS_FRAME, 2)]
)
def test_areas_boxes_and_runs_are_those_of_the_full_masks(frame, n_threads, set_threads):
    set_threads(n_threads)
    logits, resampling = make_clear_logits(frame[0]), make_resampling(*frame)
    measured = full_size_numba.measure_masks(logits, resampling, THRESHOLD, OFFSET)
    encoded = full_size_numba.encode_masks(logits, resampling, THRESHOLD, (0, 0), frame[3])
    assert_of_full_masks(frame, logits, *measured, encoded)


def test_boxes_and_runs_agree_on_values_at_the_thresholds():
    for frame in FRAMES:
        logits, resampling = make_logits(frame[0]), make_resampling(*frame)
        _, boxes = full_size_numba.measure_masks(logits, resampling, THRESHOLD, OFFSET)
        encoded = full_size_numba.encode_masks(logits, resampling, THRESHOLD, (0, 0), frame[3])
        assert_boxes_of_runs(boxes, encoded)


@pytest.mark.parametrize("origin_xy", [(0, 0), (3, 0), (0, 5), (3, 5)])
@pytest.mark.parametrize("margin_xy", [(0, 0), (4, 0), (0, 2), (4, 2)])
def test_a_crop_lies_in_its_image(origin_xy, margin_xy):
    frame = FRAMES[5]
    logits, resampling, (h, w) = make_logits(28), make_resampling(*frame), frame[3]
    (x0, y0), (right, bottom) = origin_xy, margin_xy
    image_hw = y0 + h + bottom, x0 + w + right
    encoded = full_size_numba.encode_masks(logits, resampling, THRESHOLD, origin_xy, image_hw)
    alone = full_size_numba.encode_masks(logits, resampling, THRESHOLD, (0, 0), (h, w))
    assert encoded == rle.encode_masks(
        np.pad(decode_all(alone), ((0, 0), (y0, bottom), (x0, right)))
    )


def test_no_masks_are_none():
    logits, resampling = torch.zeros(0, 28, 28), make_resampling(*FRAMES[5])
    stability, boxes = full_size_numba.measure_masks(logits, resampling, THRESHOLD, OFFSET)
    assert (stability.shape, boxes.shape) == ((0,), (0, 4))
    assert full_size_numba.encode_masks(logits, resampling, THRESHOLD, (0, 0), (61, 83)) == []


def test_a_machine_without_a_place_to_keep_compiled_code():
    code = "import numba.core.caching as c; c.CacheImpl._locator_classes = []"
    code += "\nimport amg.ops.full_size_numba"
    subprocess.run([sys.executable, "-c", code], check=True)
