"""What the built-in model is trained to do: draw the regions at a point, and know how well.

Logits are (N, M, P) for M masks at N prompts over P cells; targets (N, G, P) give the share of
each cell that each of a prompt's G regions covers.
"""

import math
from itertools import permutations

import torch
import torch.nn.functional as F

_SINGLE_MASK_REGION = 1  # the mask for unambiguous prompts means the object
_BORDER_GAIN = 3.0
_NEAREST_SHARE = 0.5  # of the loss of a prompt without doubt, beside that of its own mask


def pairwise_mask_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    balance: float | torch.Tensor,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cross-entropy plus dice of every mask with every region, (N, M, G).

    `balance` weighs foreground by (background / foreground) ** balance: 1 makes both sides equal,
    which starts learning at once; 0 is the plain mean. `weights` (N, G, P) are the cells' own in
    the cross-entropy. Matrix products keep M x G pairs cheap.
    """
    on, off = targets, 1 - targets
    if weights is not None:
        on, off = on * weights, off * weights
    n_on, n_off = on.sum(-1), off.sum(-1)
    weight_on = ((n_off + 1) / (n_on + 1)) ** balance
    norm = (weight_on * n_on + n_off).unsqueeze(1)
    # softplus(-x) is softplus(x) - x: one pass over the logits gives both sides.
    surprise = F.softplus(logits)
    miss = surprise @ on.mT - logits @ on.mT
    false_alarm = surprise @ off.mT
    cross_entropy = (weight_on.unsqueeze(1) * miss + false_alarm) / norm

    probability = logits.sigmoid()
    overlap = probability @ targets.mT
    total = probability.sum(-1).unsqueeze(2) + targets.sum(-1).unsqueeze(1)
    dice = 1 - (2 * overlap + 1) / (total + 1)
    return cross_entropy + dice


def border_weights(targets: torch.Tensor, gain: float) -> torch.Tensor:
    """Weights (N, G, P) of cells: 1, and up to `gain` more within a cell of a region's border.

    Most of a large region is easy; whether a mask is good is decided at its border.
    """
    side = math.isqrt(targets.shape[-1])
    maps = targets.unflatten(2, (side, side))
    highest = F.max_pool2d(maps, 3, stride=1, padding=1)
    lowest = -F.max_pool2d(-maps, 3, stride=1, padding=1)
    return 1 + gain * (highest - lowest).flatten(2)


def matched_loss(pairwise: torch.Tensor, order_bonus: float = 0.05) -> torch.Tensor:
    """The mean loss of the best one-to-one matching of masks with regions, (N,).

    pairwise: (N, K, K). The nesting order (part, object, group) gets a small bonus, so that each
    mask keeps a meaning unless another order fits clearly better.
    """
    size = pairwise.shape[-1]
    orders = list(permutations(range(size)))
    rows = torch.arange(size)
    losses = torch.stack([pairwise[:, rows, list(order)].mean(1) for order in orders], dim=1)
    handicap = losses.new_tensor([0.0] + [order_bonus] * (len(orders) - 1))
    best = (losses.detach() + handicap).argmin(1)
    return losses.gather(1, best.unsqueeze(1)).squeeze(1)


@torch.no_grad()
def pairwise_iou(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """IoU of each thresholded mask with each region, (N, M, G)."""
    masks, regions = (logits > 0).float(), (targets > 0.5).float()
    overlap = masks @ regions.mT
    union = masks.sum(-1).unsqueeze(2) + regions.sum(-1).unsqueeze(1) - overlap
    return overlap / union.clamp(min=1)


def mask_and_score_loss(
    logits: torch.Tensor, scores: torch.Tensor, targets: torch.Tensor, balance: torch.Tensor
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits (N, 4, P), scores (N, 4), targets (N, 3, P): all masks drawn, all scores right."""
    weights = border_weights(targets, _BORDER_GAIN)
    pairwise = pairwise_mask_loss(logits, targets, balance, weights)
    single = pairwise[:, 0, _SINGLE_MASK_REGION].mean()
    multiple = matched_loss(pairwise[:, 1:]).mean()
    iou = pairwise_iou(logits, targets)
    # A mask is good if it is any of the regions at its point: that is what ranking needs.
    best_iou = torch.cat([iou[:, :1, _SINGLE_MASK_REGION], iou[:, 1:].amax(2)], dim=1)
    score_error = (scores - best_iou).square().mean()
    metrics = {
        "iou_part": iou[:, 1:, 0].amax(1).mean(),
        "iou_object": iou[:, 1:, 1].amax(1).mean(),
        "iou_group": iou[:, 1:, 2].amax(1).mean(),
        "score_rmse": score_error.sqrt(),
    }
    return multiple + 0.3 * single + score_error, metrics


def certain_mask_loss(
    logits: torch.Tensor, scores: torch.Tensor, targets: torch.Tensor, balance: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (N, 4, P), scores (N, 4), targets (N, P): a prompt that leaves no doubt.

    The first mask is drawn, and of the other three the nearest: who asks for three finds it among
    them, by its score. Gives the loss, and the IoU (N,) of the first masks.
    """
    targets = targets.unsqueeze(1)
    weights = border_weights(targets, _BORDER_GAIN)
    drawn = pairwise_mask_loss(logits, targets, balance, weights).squeeze(2)
    iou = pairwise_iou(logits, targets).squeeze(2)
    error = (scores - iou).square()
    loss = drawn[:, 0] + _NEAREST_SHARE * drawn[:, 1:].amin(1) + error[:, 0] + error[:, 1:].mean(1)
    return loss.mean(), iou[:, 0]
