"""Rows of ids as tensors."""

import torch

from common.training.padding import close_up, in_batches, left_pad, right_pad


def test_padding_sides():
    ids, mask = left_pad([[1, 2], [3]], 0)
    assert ids.tolist() == [[1, 2], [0, 3]] and mask.tolist() == [[True, True], [False, True]]
    ids, mask = right_pad([[1, 2], [3]], 9)
    assert ids.tolist() == [[1, 2], [3, 9]] and mask.tolist() == [[True, True], [True, False]]


def test_batches_cover_everything_once():
    assert list(in_batches(5, 2)) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert list(in_batches(0, 2)) == []


def test_closing_up_moves_padding_behind_and_cuts_what_nobody_needs():
    mask = torch.tensor([[0, 1, 1, 1, 0, 0], [0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0]]).bool()
    ids = torch.arange(18).view(3, 6)
    closed, moved = close_up(mask, ids)
    assert closed.tolist() == [[True] * 3, [True, True, False], [False] * 3]
    assert moved[0].tolist() == [1, 2, 3] and moved[1, :2].tolist() == [9, 10]
    closed, moved = close_up(torch.tensor([[True, False, True]]), torch.tensor([[7, 8, 9]]))
    assert moved.tolist() == [[7, 9]] and closed.all()
