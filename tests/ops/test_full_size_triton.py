"""The GPU's kernels: against upsampling, and to the bit against the compiled CPU code.

Without a GPU they are interpreted, on frames of a few tiles; with one, `pytest -m gpu` runs them.
"""

import os
import subprocess
import sys
from dataclasses import dataclass

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
)

from amg.ops import full_size_numba, rle
from amg.ops.resample import Resampling
from amg.records import Rle

pytest.importorskip("triton", reason="torch brings triton on Linux only")

from amg.ops import full_size_triton

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
INTERPRETED = pytest.mark.skipif(not IS_INTERPRETED, reason="kernels are compiled: run -m gpu")
SMALL_FRAME = 28, 112, (80, 112), (61, 83)
SMALL_FRAMES = [
    SMALL_FRAME,
    (28, 112, (112, 90), (32, 131)),  # whole words, two tiles across
    (28, 112, (112, 1), (37, 1)),
    (28, 112, (1, 112), (1, 131)),
    (112, 448, (448, 448), (1, 1)),
    (112, 448, (448, 448), (31, 29)),  # many low-res logits a tile
]
EVERY_FRAME = [*SMALL_FRAMES, *FRAMES, SAMS_FRAME]
# Of the clear logits, for the interpreter: blobs, noise, all on, a ramp, and ramps to a threshold.
SOME_CLEAR = {SMALL_FRAME: [0, 8, 11, 14, 16, 17]}
FEW_CLEAR = [0, 8, 14]


@dataclass(frozen=True)
class Case:
    """What the kernels give for logits (M, h, w) in a frame; the first `n_clear` are clear."""

    frame: tuple
    logits: torch.Tensor
    n_clear: int
    resampling: Resampling
    stability: torch.Tensor
    boxes: torch.Tensor
    encoded: list[Rle]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("cpu", marks=INTERPRETED),
        pytest.param("cuda", marks=pytest.mark.gpu),
    ],
)
def device(request):
    return usable(request.param)


@pytest.fixture(
    scope="module",
    params=[pytest.param(("cpu", frame), marks=INTERPRETED) for frame in SMALL_FRAMES]
    + [
        pytest.param(("cuda", frame), marks=pytest.mark.gpu)
        for frame in [*SMALL_FRAMES, *FRAMES, SAMS_FRAME]
    ],
    ids=str,
)
def case(request):
    device, frame = usable(request.param[0]), request.param[1]
    clear = make_clear_logits(frame[0])
    at_thresholds = make_logits(frame[0])[len(clear) :]
    if device == "cpu":
        clear = clear[SOME_CLEAR.get(frame, FEW_CLEAR)]
        at_thresholds = at_thresholds[::4]
    logits = torch.cat([clear, at_thresholds])
    resampling = make_resampling(*frame)
    stability, boxes = full_size_triton.measure_masks(
        logits.to(device), resampling, THRESHOLD, OFFSET
    )
    encoded = full_size_triton.encode_masks(
        logits.to(device), resampling, THRESHOLD, (0, 0), frame[3]
    )
    return Case(frame, logits, len(clear), resampling, stability.cpu(), boxes.cpu(), encoded)


def usable(device):
    if device == "cuda" and (IS_INTERPRETED or not torch.cuda.is_available()):
        pytest.skip("no CUDA device, or TRITON_INTERPRET is set")
    return device


def test_they_are_tried_on_a_toy_before_they_are_trusted(device, monkeypatch):
    full_size_triton.try_kernels(torch.device(device))
    encode = full_size_triton.encode_masks
    monkeypatch.setattr(full_size_triton, "encode_masks", lambda x, *rest: encode(-x, *rest))
    with pytest.raises(RuntimeError, match="other masks"):
        full_size_triton.try_kernels(torch.device(device))


def test_areas_boxes_and_runs_are_those_of_the_full_masks(case):
    n = case.n_clear
    found = case.stability[:n], case.boxes[:n], case.encoded[:n]
    assert_of_full_masks(case.frame, case.logits[:n], *found)


def test_the_box_measured_is_that_of_what_is_encoded(case):
    assert_boxes_of_runs(case.boxes, case.encoded)


def test_all_is_to_the_bit_what_the_cpu_computes(case):
    stability, boxes = full_size_numba.measure_masks(
        case.logits, case.resampling, THRESHOLD, OFFSET
    )
    torch.testing.assert_close(case.stability, stability, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(case.boxes, boxes, rtol=0, atol=0)
    place = THRESHOLD, (0, 0), case.frame[3]
    assert case.encoded == full_size_numba.encode_masks(case.logits, case.resampling, *place)


def test_rounding_is_that_of_the_cpu(device):
    """On every pixel of noise, a few units in the last place wide, around a threshold."""
    threshold, rng = 0.7, torch.Generator().manual_seed(0)
    unit = torch.finfo(torch.float32).eps * threshold
    logits = threshold + unit * torch.randint(-2, 3, (2, 28, 28), generator=rng)
    resampling, place = make_resampling(*SMALL_FRAME), (threshold, (0, 0), (61, 83))
    encoded = full_size_triton.encode_masks(logits.to(device), resampling, *place)
    assert encoded == full_size_numba.encode_masks(logits, resampling, *place)
    _, boxes = full_size_triton.measure_masks(logits.to(device), resampling, threshold, OFFSET)
    assert_boxes_of_runs(boxes.cpu(), encoded)


@pytest.mark.parametrize(
    ("frame", "rows", "columns", "thickness"),
    [
        # The last tile begins at row 32 and column 128: near low-res ones 15 and 25.
        ((28, 112, (112, 112), (60, 140)), range(13, 17), range(24, 28), 1),
        ((112, 448, (448, 448), (31, 29)), [4, 60, 106], [4, 60, 106], 4),
    ],
)
def test_nothing_that_a_tile_depends_on_is_overlooked(device, frame, rows, columns, thickness):
    logits = torch.full((len(rows) + len(columns), frame[0], frame[0]), -5.0)
    for mask, first in zip(logits, rows, strict=False):
        mask[first : first + thickness] = 5.0
    for mask, first in zip(logits[len(rows) :], columns, strict=True):
        mask[:, first : first + thickness] = 5.0
    resampling, place = make_resampling(*frame), (THRESHOLD, (0, 0), frame[3])
    encoded = full_size_triton.encode_masks(logits.to(device), resampling, *place)
    assert encoded == full_size_numba.encode_masks(logits, resampling, *place)
    assert all(rle.area(mask) for mask in encoded)


@pytest.fixture(scope="module")
def three(device):
    """Three masks' logits, and what is measured and encoded of them."""
    logits = make_clear_logits(28)[::8].to(device)
    return logits, measure_and_encode(logits)


def test_a_crop_lies_in_its_image(three):
    (logits, (_, _, alone)), resampling = three, make_resampling(*SMALL_FRAME)
    encoded = full_size_triton.encode_masks(logits, resampling, THRESHOLD, (3, 5), (68, 90))
    assert encoded == rle.encode_masks(np.pad(decode_all(alone), ((0, 0), (5, 2), (3, 4))))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_floats_are_computed_in_float32(device, dtype):
    logits = make_clear_logits(28)[8:9].to(device, dtype)  # noise: every pixel is computed
    assert measure_and_encode(logits) == measure_and_encode(logits.float())


def test_masks_in_several_launches_are_the_same(three, monkeypatch):
    logits, at_once = three
    monkeypatch.setattr(full_size_triton, "_MOST_PROGRAMS", 5)  # a mask has two
    monkeypatch.setattr(full_size_triton, "_MOST_WORDS", 400)  # a mask has 166
    assert measure_and_encode(logits) == at_once


def test_views_of_logits_are_read_as_they_are(three):
    logits, expected = three
    assert measure_and_encode(logits.mT.contiguous().mT) == expected


@pytest.mark.filterwarnings("ignore:invalid value encountered in multiply")
def test_nan_is_above_no_threshold(device):
    logits, resampling = make_clear_logits(28)[:5], make_resampling(*SMALL_FRAME)
    logits[0, 3:9, 5:20] = torch.nan
    logits[1] = torch.nan
    logits[2] = 5.0
    logits[2, 10, 0] = torch.nan
    logits[3, 7:9] = torch.inf
    logits[4, :, 7:9] = -torch.inf
    on_device = logits.to(device)
    stability, boxes = full_size_triton.measure_masks(on_device, resampling, THRESHOLD, OFFSET)
    encoded = full_size_triton.encode_masks(on_device, resampling, THRESHOLD, (0, 0), (61, 83))
    assert_boxes_of_runs(boxes.cpu(), encoded)
    assert stability.isnan().tolist() == [False, True, False, False, False]
    full = resample(logits[:3], resampling)
    assert full.isnan().any(2).any(1).all()
    assert (decode_all(encoded)[:3] != (full > THRESHOLD).numpy()).sum() <= 1  # but for rounding


def test_no_masks_are_none(device):
    stability, boxes, encoded = measure_and_encode(torch.zeros(0, 28, 28, device=device))
    assert (stability, boxes, encoded) == ([], [], [])


def test_compiled_kernels_round_each_operation(tmp_path):
    """Compiled for a GPU that need not be there: no multiply-add, which the default would give."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", COMPILE], env=environment, check=True)


COMPILE = """
import torch, triton
from triton.backends.compiler import GPUTarget
from amg.ops import full_size_triton

POINTERS = {"logits": "*bf16", "row_starts": "*i32", "column_starts": "*i32", "found": "*i32",
            "row_weights": "*fp32", "column_weights": "*fp32", "words": "*i32"}
FLOATS = dict.fromkeys(["high", "middle", "low", "threshold"], "fp32")

def n_contracted(kernel, **options):
    types = {name: (POINTERS | FLOATS).get(name, "i32") for name in kernel.arg_names}
    source = triton.compiler.ASTSource(kernel, types)
    target = GPUTarget("cuda", 90, 32)
    return triton.compile(source, target, options).asm["ptx"].count("fma.rn.f32")

for kernel in (full_size_triton._measure, full_size_triton._pack):
    assert n_contracted(kernel, **full_size_triton._LAUNCH) == 0
    assert n_contracted(kernel, **full_size_triton._LAUNCH | {"enable_fp_fusion": True}) > 0
"""


@pytest.mark.gpu
def test_more_than_2_to_the_31_pixels_in_little_memory():
    usable("cuda")
    side, n_masks = 12_000, 30
    logits = make_clear_logits(112)[:6].cuda()
    resampling = make_resampling(112, 448, (448, 448), (side, side))
    expected = measure_and_encode(logits, resampling)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    found = measure_and_encode(logits.repeat(n_masks // 6, 1, 1), resampling)
    assert n_masks * side**2 > 2**31
    assert torch.cuda.max_memory_allocated() - before < side**2  # a byte a pixel of one mask
    assert found == tuple(column * (n_masks // 6) for column in expected)


@pytest.mark.gpu
def test_more_than_2_to_the_31_low_res_logits():
    usable("cuda")
    n_masks = 2**31 // 256**2 + 2
    logits = torch.full((n_masks, 256, 256), -5.0, dtype=torch.bfloat16, device="cuda")
    logits[-1] = make_clear_logits(256)[0]
    resampling = make_resampling(256, 1024, (1024, 1024), (97, 101))
    stability, boxes, encoded = measure_and_encode(logits, resampling)
    last_alone = measure_and_encode(logits[-1:], resampling)
    assert (stability[-1:], boxes[-1:], encoded[-1:]) == last_alone
    assert set(stability[:-1]) == {-1}


def measure_and_encode(logits, resampling=None):
    """Stability (-1 for NaN, which is unlike itself), boxes and runs, each a list."""
    resampling = resampling or make_resampling(*SMALL_FRAME)
    size_hw = resampling.rows.size, resampling.columns.size
    stability, boxes = full_size_triton.measure_masks(logits, resampling, THRESHOLD, OFFSET)
    encoded = full_size_triton.encode_masks(logits, resampling, THRESHOLD, (0, 0), size_hw)
    return stability.nan_to_num(-1).tolist(), boxes.tolist(), encoded
