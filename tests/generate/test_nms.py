import subprocess
import sys

import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import batched_nms, box_iou, nms

from amg.generate.nms import suppress_duplicates

BOXES = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 30), st.integers(0, 30)),
    min_size=1,
    max_size=40,
)


def _tensors(boxes_xywh, seed):
    boxes = torch.tensor([(x, y, x + w, y + h) for x, y, w, h in boxes_xywh])
    return boxes, torch.rand(len(boxes), generator=torch.Generator().manual_seed(seed))


@given(BOXES, st.integers(0, 9), st.floats(0.05, 0.95))
def test_keeps_what_the_original_keeps(boxes_xywh, seed, threshold):
    boxes, scores = _tensors(boxes_xywh, seed)
    expected = batched_nms(boxes.float(), scores, torch.zeros(len(boxes)), threshold)
    assert torch.equal(suppress_duplicates(boxes, scores, threshold), expected)


@given(BOXES, st.integers(0, 9), st.floats(0.05, 0.95))
def test_is_idempotent_and_leaves_no_duplicates(boxes_xywh, seed, threshold):
    boxes, scores = _tensors(boxes_xywh, seed)
    keep = suppress_duplicates(boxes, scores, threshold)
    again = suppress_duplicates(boxes[keep], scores[keep], threshold)
    assert torch.equal(again, torch.arange(len(keep)))
    kept = boxes[keep].float()
    off_diagonal = box_iou(kept, kept).nan_to_num().fill_diagonal_(0)
    assert (off_diagonal <= threshold + 1e-6).all()
    assert (scores[keep].diff() <= 0).all()


def test_ties_of_many_boxes_are_in_the_originals_order():
    """Above a thousand boxes torchvision takes another way, with an unstable sort."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.randint(0, 3000, (1500, 2), generator=generator)
    boxes = torch.cat([corners, corners + 40], dim=1)
    scores = torch.randint(0, 3, (1500,), generator=generator).float()
    expected = batched_nms(boxes.float(), scores, torch.zeros(1500), 0.7)
    assert torch.equal(suppress_duplicates(boxes, scores, 0.7), expected)
    # On a GPU it does so above 25,000.
    on_gpu = suppress_duplicates(boxes, scores, 0.7, ties_of="cuda")
    assert torch.equal(on_gpu, nms(boxes.float(), scores, 0.7))
    assert not torch.equal(on_gpu, expected)


def test_ties_stay_in_their_order():
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 60, 60]])
    assert suppress_duplicates(boxes, torch.ones(3), 0.7).tolist() == [0, 2]


def test_no_box_at_all():
    assert suppress_duplicates(torch.zeros(0, 4), torch.zeros(0), 0.7).tolist() == []


def test_the_kernel_comes_without_the_rest_of_torchvision():
    """Whose import takes longer than torch's; and with it, where its file has another name."""
    run = subprocess.run(
        [sys.executable, "-c", WITH_TORCH], capture_output=True, text=True, check=False
    )
    assert run.stdout.splitlines() == ["False", "True [0]"], run.stderr


# Torch takes long: both begin when it has been imported.
WITH_TORCH = """
import os, sys
from pathlib import Path
import torch

if os.fork():
    os.wait()
    Path.glob = lambda *_: []
    from amg.generate.nms import suppress_duplicates
    kept = suppress_duplicates(torch.tensor([[0, 0, 9, 9]] * 2), torch.ones(2), 0.5)
    print("torchvision" in sys.modules, kept.tolist())
else:
    import amg.generate.nms
    found = "torchvision" in sys.modules
    import torchvision.ops  # still works after
    print(found)
"""
