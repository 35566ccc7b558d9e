import torch

from pipelines.train.questions import (
    BACKGROUND,
    FOREGROUND,
    first_questions,
    meant_levels,
    second_questions,
)


def test_points_have_a_padding_token_and_boxes_two_corners():
    points, boxes = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[1.0, 2.0, 5.0, 6.0]]])
    questions = first_questions(points, boxes)
    assert questions.coords.tolist() == [[[3, 4], [0, 0]], [[1, 2], [5, 6]]]
    assert questions.kinds.tolist() == [[1, -1], [2, 3]]


def test_a_second_click_lies_in_the_error_and_says_its_side():
    torch.manual_seed(0)
    n, side = 400, 8
    meant = torch.zeros(n, side, side)
    meant[:, :, :4] = 1
    answers = torch.full((n, side, side), -1.0)
    answers[:, :, 2:6] = 1.0  # two columns are missing, two are too many
    first = first_questions(torch.zeros(1, n, 2), torch.zeros(1, 0, 4))
    second = second_questions(first, torch.arange(n), answers.flatten(1), meant.flatten(1))
    clicks, kinds = second.coords[:, 2], second.kinds[:, 2]
    column = clicks[:, 0] / 4
    with_mask = second.has_mask
    assert 0.5 < with_mask.float().mean() < 0.7
    missing, too_many = column < 2, (column >= 4) & (column < 6)
    assert (missing | too_many)[with_mask].all()
    assert (kinds[missing] == FOREGROUND).all() and (kinds[too_many] == BACKGROUND).all()
    assert 0.3 < too_many[with_mask].float().mean() < 0.7
    rest = ~missing & ~too_many
    assert rest.any() and (kinds[rest] == FOREGROUND).all() and (column[rest] < 4).all()
    assert second.coords[:, :2].equal(first.coords)


def test_a_right_answer_is_asked_again_inside_its_region():
    meant = torch.zeros(50, 64)
    meant[:, 9:11] = 1  # the second row's second and third cells
    first = first_questions(torch.zeros(1, 50, 2), torch.zeros(1, 0, 4))
    second = second_questions(first, torch.arange(50), meant * 2 - 1, meant)
    assert (second.kinds[:, 2] == FOREGROUND).all()
    columns, rows = (second.coords[:, 2] // 4).unbind(1)
    assert (rows == 1).all() and ((columns == 1) | (columns == 2)).all()


def test_most_clicks_mean_the_nearest_region():
    torch.manual_seed(0)
    levels = meant_levels(torch.tensor([[0.1, 0.8, 0.3]]).repeat(3000, 1))
    shares = torch.bincount(levels, minlength=3) / 3000
    torch.testing.assert_close(shares, torch.tensor([0.133, 0.733, 0.133]), atol=0.03, rtol=0)
