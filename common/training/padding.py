"""Rows of token ids as tensors, and long lists in pieces."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def left_pad(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Ids and mask, `[rows, longest]`, padded on the left. On the CPU."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([[pad_id] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in rows])
    return ids, mask


def right_pad(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Ids and mask, `[rows, longest]`, padded on the right. On the CPU."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([list(row) + [pad_id] * (width - len(row)) for row in rows])
    mask = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows])
    return ids, mask


def in_batches(count: int, size: int) -> Iterator[slice]:
    """Slices that cover `range(count)` in pieces of at most `size`."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
