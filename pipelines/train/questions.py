"""What a batch asks: points and boxes first, then a click where the first answer was wrong.

The second is asked as SAM was trained ("Segment Anything" (2023), appendix A): the click lies in
the error, says which side of the border it is on, and comes with the first answer's logits as a
mask prompt. Some come without that mask, so that several points, or a box with a point, are known
too.
"""

import math
from dataclasses import dataclass

import torch

from pipelines.train.prompts import MASK_STRIDE

PADDING, BACKGROUND, FOREGROUND, CORNER_1, CORNER_2 = -1, 0, 1, 2, 3
_NO_MASK_SHARE = 0.4
_ANYWHERE_SHARE = 0.5
_OTHER_LEVEL_SHARE = 0.4


@dataclass(frozen=True, slots=True)
class Questions:
    """N prompts of T tokens: `coords` (N, T, 2) in pixels, `kinds` (N, T) labels of points.

    `masks` (N, n_cells) are logits, used where `has_mask` (N,) is.
    """

    coords: torch.Tensor
    kinds: torch.Tensor
    masks: torch.Tensor | None = None
    has_mask: torch.Tensor | None = None


def first_questions(points_xy: torch.Tensor, boxes_xyxy: torch.Tensor) -> Questions:
    """Of each of B images P points (B, P, 2), then Q boxes (B, Q, 4): prompts of two tokens."""
    points = torch.stack([points_xy, torch.zeros_like(points_xy)], dim=2)
    coords = torch.cat([points, boxes_xyxy.unflatten(2, (2, 2))], dim=1)
    kinds = coords.new_empty(coords.shape[:3], dtype=torch.long)
    n_points = points_xy.shape[1]
    kinds[:, :n_points] = kinds.new_tensor([FOREGROUND, PADDING])
    kinds[:, n_points:] = kinds.new_tensor([CORNER_1, CORNER_2])
    return Questions(coords.flatten(0, 1), kinds.flatten(0, 1))


@torch.no_grad()
def second_questions(
    first: Questions, again: torch.Tensor, answers: torch.Tensor, meant: torch.Tensor
) -> Questions:
    """Some questions, an index (N,), asked again with a click more.

    They were answered by logits (N, n_cells) and meant targets (N, n_cells). A click without the
    mask lies anywhere in the target as often as in the error.
    """
    n, n_cells = answers.shape
    has_mask = torch.rand(n, device=answers.device) >= _NO_MASK_SHARE
    wanted = meant > 0.5
    error = (answers > 0) != wanted
    is_anywhere = ~has_mask & (torch.rand(n, device=answers.device) < _ANYWHERE_SHARE)
    is_anywhere |= ~error.any(1)
    places = torch.where(is_anywhere[:, None], wanted, error)
    # A region smaller than half a cell has no place of its own: any will do.
    cells = torch.multinomial(places.float() + 1e-9, 1)
    kinds = torch.where(wanted.gather(1, cells), FOREGROUND, BACKGROUND)
    width = math.isqrt(n_cells)
    corners = torch.cat([cells % width, cells // width], dim=1) * MASK_STRIDE
    clicks = corners + torch.rand(n, 2, device=answers.device) * (MASK_STRIDE - 1)
    return Questions(
        torch.cat([first.coords[again], clicks.unsqueeze(1)], dim=1),
        torch.cat([first.kinds[again], kinds], dim=1),
        answers,
        has_mask,
    )


@torch.no_grad()
def meant_levels(ious: torch.Tensor) -> torch.Tensor:
    """Which region (N,) each of N points means in the end, from its mask's IoUs (N, 3) with them.

    Mostly the nearest: a click says that the border is wrong. Else any: it says how much is meant.
    """
    nearest = ious.argmax(1)
    other = torch.randint_like(nearest, ious.shape[1])
    is_other = torch.rand(len(ious), device=ious.device) < _OTHER_LEVEL_SHARE
    return torch.where(is_other, other, nearest)
