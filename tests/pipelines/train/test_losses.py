import pytest
import torch

from pipelines.train.losses import (
    border_weights,
    certain_mask_loss,
    matched_loss,
    pairwise_iou,
    pairwise_mask_loss,
)


def _targets():
    """Two prompts, two regions each over six cells, one cell half covered."""
    return torch.tensor(
        [[[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0.5, 0]], [[0, 0, 0, 0, 0, 1], [0, 0, 0, 1, 1, 1]]]
    )


def test_the_right_mask_costs_least_and_almost_nothing():
    targets = _targets().round()
    logits = (targets * 2 - 1) * 20
    loss = pairwise_mask_loss(logits, targets, balance=1.0)
    assert loss.shape == (2, 2, 2)
    assert loss.diagonal(dim1=1, dim2=2).max() < 1e-3
    assert loss[:, 0, 1].min() > 1


def test_the_loss_is_the_sum_written_out():
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(2, 3, 6, generator=generator), _targets()
    on, off = targets[1, 0], 1 - targets[1, 0]
    weight = ((off.sum() + 1) / (on.sum() + 1)) ** 0.7
    x = logits[1, 2]
    cross_entropy = -(weight * on * x.sigmoid().log() + off * (1 - x.sigmoid()).log()).sum()
    cross_entropy = cross_entropy / (weight * on.sum() + off.sum())
    p = x.sigmoid()
    dice = 1 - (2 * (p * on).sum() + 1) / (p.sum() + on.sum() + 1)
    loss = pairwise_mask_loss(logits, targets, balance=0.7)[1, 2, 0]
    assert loss.item() == pytest.approx((cross_entropy + dice).item(), rel=1e-5)


def test_cells_at_a_border_weigh_more_and_more_wrong_ones_cost_more():
    region = torch.zeros(1, 1, 5, 5)
    region[..., :2] = 1
    weights = border_weights(region.flatten(2), gain=3.0)
    assert weights.view(5, 5)[2].tolist() == [1, 4, 4, 1, 1]
    logits = torch.where(region > 0, 8.0, -8.0).repeat(2, 1, 1, 1)
    logits[0, 0, 2, 2], logits[1, 0, 2, 4] = 8, 8  # wrong beside the border, and far from it
    pair = (logits.flatten(2), region.flatten(2).repeat(2, 1, 1), 0.5)
    near, far = pairwise_mask_loss(*pair, weights.repeat(2, 1, 1))[:, 0, 0]
    assert near > 1.5 * far
    near, far = pairwise_mask_loss(*pair)[:, 0, 0]
    assert near == pytest.approx(far.item())


def test_matching_is_one_to_one_and_prefers_the_nesting_order():
    # Alone, both masks would take the first region.
    pairwise = torch.tensor([[[0.1, 0.9], [0.2, 0.8]]])
    assert matched_loss(pairwise).item() == pytest.approx(0.45)
    crossed = torch.tensor([[[0.9, 0.1], [0.1, 0.9]]])
    assert matched_loss(crossed).item() == pytest.approx(0.1)
    nearly_equal = torch.tensor([[[0.5, 0.49], [0.49, 0.5]]])
    assert matched_loss(nearly_equal).item() == pytest.approx(0.5)


def test_iou_of_thresholded_masks():
    logits = torch.tensor([[[5.0, 5.0, 5.0, -5.0, -5.0, -5.0]]])
    iou = pairwise_iou(logits, _targets()[:1])
    assert iou[0, 0].tolist() == pytest.approx([2 / 3, 3 / 4])


def test_a_prompt_without_doubt_is_answered_by_its_own_mask_and_one_of_the_three():
    targets = torch.tensor([[1.0, 1, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1, 1, 1]])
    right, wrong = ((sign * (targets * 2 - 1) * 20).unsqueeze(1) for sign in (1, -1))
    balance = torch.tensor(0.5)

    def loss(*masks, score):
        scores = torch.tensor([[float(s) for s in score]] * len(targets))
        return certain_mask_loss(torch.cat(masks, dim=1), scores, targets, balance)

    best, iou = loss(right, wrong, right, wrong, score=(1, 0, 1, 0))
    assert iou.tolist() == [1.0] * len(targets)
    assert best < 0.02
    unsure, _ = loss(right, wrong, right, wrong, score=(0, 0, 1, 0))
    assert unsure == pytest.approx(best.item() + 1)
    unsure, _ = loss(right, wrong, right, wrong, score=(1, 0, 0, 0))
    assert unsure == pytest.approx(best.item() + 1 / 3)
    none_of_three, _ = loss(right, wrong, wrong, wrong, score=(1, 0, 0, 0))
    assert none_of_three > 2.5
    its_own_is_wrong, iou = loss(wrong, right, right, right, score=(0, 1, 1, 1))
    assert its_own_is_wrong > 5
    assert iou.tolist() == [0.0] * len(targets)
