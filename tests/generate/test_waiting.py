import pytest
import torch

from amg.generate.mask_batch import MaskBatch
from amg.generate.nms import suppress_duplicates
from amg.generate.waiting import WaitingMasks
from amg.ops.outline_logits import keep_outline_logits
from amg.records import Rle

SIDE = 4


def make_masks(n, first):
    """Masks whose first logit names them, with overlapping boxes and shuffled scores."""
    rng = torch.Generator().manual_seed(first)
    corners = torch.randint(0, 12, (n, 2), generator=rng)
    masks = MaskBatch(
        boxes_xyxy=torch.cat([corners, corners + 6], dim=1),
        predicted_iou=torch.rand(n, generator=rng),
        stability_score=torch.rand(n, generator=rng),
        points_xy=torch.rand(n, 2, generator=rng),
        level=torch.arange(first, first + n),
    )
    logits = masks.level[:, None, None].expand(-1, SIDE, SIDE).float().contiguous()
    return masks, logits


class Encoder:
    """Remembers how many masks it was given."""

    def __init__(self):
        self.n_encoded = 0

    def __call__(self, logits):
        self.n_encoded += len(logits)
        return [Rle((1, 1), str(int(mask[mask.isfinite()].max()))) for mask in logits]


@pytest.mark.parametrize(("most_masks", "n_early"), [(1000, 0), (20, 26), (0, 40)])
def test_survivors_are_those_of_one_nms_however_few_may_wait(most_masks, n_early):
    encode = Encoder()
    waiting = WaitingMasks(encode, most_masks * SIDE * SIDE * 4)
    batches = [make_masks(n, first) for n, first in ((13, 0), (0, 13), (13, 13), (14, 26))]
    for masks, logits in batches:
        waiting.add(masks, logits)
    assert encode.n_encoded == n_early
    survivors = waiting.survivors(0.5)
    rles = waiting.encode(survivors)

    whole = MaskBatch.concatenate([masks for masks, _ in batches])
    keep = suppress_duplicates(whole.boxes_xyxy, whole.predicted_iou, 0.5)
    assert 3 < len(keep) < 30
    assert survivors.tolist() == keep.tolist()
    assert waiting.masks.level.tolist() == whole.level.tolist()
    assert [encoded.counts for encoded in rles] == [str(index) for index in keep.tolist()]
    late = 40 - n_early
    assert n_early <= encode.n_encoded <= n_early + min(late, len(keep))


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_outlines_wait_as_logits_do(at_once, monkeypatch):
    """And however many are encoded at once: little memory may be left for many survivors."""
    monkeypatch.setattr("amg.generate.waiting._ENCODED_BYTES", at_once * SIDE * SIDE * 4)
    encode = Encoder()
    waiting = WaitingMasks(encode, 10**6)
    for n, first in ((13, 0), (14, 13)):
        masks, logits = make_masks(n, first)
        logits[:, 3, 3] = -1  # so that some outline keeps the values beside it
        logits[:, 0, 0] = -1
        logits[:, 1, 1] = masks.level + 1.0
        waiting.add(masks, keep_outline_logits(logits, 0.0) if first else logits)
    rles = waiting.encode(torch.tensor([20, 3, 15, 26, 0]))
    assert encode.n_encoded == 5
    assert [encoded.counts for encoded in rles] == ["21", "4", "16", "27", "1"]


def test_no_masks():
    waiting = WaitingMasks(Encoder(), 10)
    waiting.add(*make_masks(0, 0))
    survivors = waiting.survivors(0.7)
    assert (len(waiting.masks), len(survivors), waiting.encode(survivors)) == (0, 0, [])
