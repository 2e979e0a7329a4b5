"""Rows of ids as tensors."""

from common.training.padding import in_batches, left_pad, right_pad


def test_padding_sides():
    ids, mask = left_pad([[1, 2], [3]], 0)
    assert ids.tolist() == [[1, 2], [0, 3]] and mask.tolist() == [[True, True], [False, True]]
    ids, mask = right_pad([[1, 2], [3]], 9)
    assert ids.tolist() == [[1, 2], [3, 9]] and mask.tolist() == [[True, True], [True, False]]


def test_batches_cover_everything_once():
    assert list(in_batches(5, 2)) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert list(in_batches(0, 2)) == []
