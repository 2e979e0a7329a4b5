"""Several sequences in one row, none of which sees another: no work on padding.

Sequences of one group may begin alike; what they share goes through the model once. A row's
sequences are told apart by a mask over pairs of tokens, and each counts its own positions, so that
every token's output is what it would be in a row of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from common.errors import UserError
from common.models.attention import layer_kinds, takes_masks_over_pairs
from common.models.logprobs import position_ids
from common.training.distributed import device

PACK_BELOW, PACK_WIDTH = 0.9, 4096
"""Share of real tokens in a batch below which its rows are packed, and how long they may be: the
mask has its price, which grows with the square of the width."""


class Arranged(NamedTuple):
    """A padded batch as a model is to get it, without its padding."""

    inputs: dict[str, Tensor | None]
    """`input_ids`, `attention_mask` and `position_ids` of the model's forward."""
    places: Tensor
    """`[batch, width]` int64: where each real token of the batch stands in the flattened
    `input_ids`, a row's tokens side by side."""


@dataclass
class Packed:
    """Rows of packed sequences."""

    input_ids: Tensor
    """`[rows, width]` int64."""
    position_ids: Tensor
    """`[rows, width]` int64: each sequence counts from 0."""
    attention_mask: Tensor
    """`[rows, 1, width, width]` bool: whether a token (third axis) sees another (fourth)."""
    ends: list[list[int]]
    """For each group, the places of its sequences' last tokens in the flattened rows."""


def pack(groups: Sequence[Sequence[list[int]]], pad_id: int, capacity: int) -> Packed:
    """Packs groups of sequences into as few rows as first-fit-decreasing finds.

    Args:
        groups: token ids of sequences; those of one group share their longest common beginning.
        capacity: tokens a row may hold; it grows to the longest group.

    Returns:
        tensors on this rank's device.
    """
    trees = [_tree(group) for group in groups]
    sizes = [len(ids) for ids, _, _, _ in trees]
    rows = first_fit(sizes, max(capacity, *sizes))
    width = max(sum(sizes[i] for i in row) for row in rows)
    shape = (len(rows), width)
    ids = torch.full(shape, pad_id)
    positions, branches = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    owners = torch.full(shape, -1)
    ends: list[list[int]] = [[] for _ in groups]
    for number, row in enumerate(rows):
        start = 0
        for i in row:
            part = slice(start, start + sizes[i])
            own_ids, own_positions, own_branches, own_ends = trees[i]
            ids[number, part] = torch.tensor(own_ids)
            positions[number, part] = torch.tensor(own_positions)
            branches[number, part] = torch.tensor(own_branches)
            owners[number, part] = i
            ends[i] = [number * width + start + end for end in own_ends]
            start += sizes[i]
    ids, positions, owners, branches = (x.to(device()) for x in (ids, positions, owners, branches))
    return Packed(ids, positions, _visible(owners, branches), ends)


def arrange(model: Any, input_ids: Tensor, attention_mask: Tensor) -> Arranged:
    """Takes the padding out of a batch: rows move to the left, or several share one.

    Rows that are nearly as long as the longest only move to the left. A causal model then needs
    no mask: no real token sees what stands behind its row's last one.

    Args:
        model: a transformers model.
        input_ids, attention_mask: `[batch, width]`, padding anywhere.
    """
    mask = attention_mask.bool()
    counts = mask.sum(dim=1).clamp(min=1).tolist()
    width = max(counts)
    packs = width <= PACK_WIDTH and sum(counts) < PACK_BELOW * width * len(counts)
    packs = packs and can_pack(model)
    rows = first_fit(counts, width) if packs else [[i] for i in range(len(counts))]
    starts = [0] * len(counts)
    for number, row in enumerate(rows):
        start = number * width
        for i in row:
            starts[i] = start
            start += counts[i]
    own_places = position_ids(mask)
    places = torch.tensor(starts, device=mask.device).unsqueeze(1) + own_places
    shape, filled = (len(rows), width), places[mask]
    ids = input_ids.new_zeros(shape)
    ids.view(-1)[filled] = input_ids[mask]
    # Positions go on into the padding: breaks in them would mean packed rows to transformers.
    positions = torch.arange(width, device=mask.device).repeat(len(rows), 1)
    visible = None
    if packs:
        owners = torch.full(shape, -1, device=mask.device)
        own_rows = torch.arange(len(counts), device=mask.device).unsqueeze(1).expand_as(places)
        owners.view(-1)[filled] = own_rows[mask]
        positions.view(-1)[filled] = own_places[mask]
        visible = _visible(owners, torch.zeros_like(owners))
    inputs = {"input_ids": ids, "attention_mask": visible, "position_ids": positions}
    return Arranged(inputs, places)


def first_fit(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of `sizes` by row: the largest first, each into the first row with room for it.

    Args:
        capacity: at least as large as each size.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        number = next((n for n, left in enumerate(room) if sizes[i] <= left), len(rows))
        if number == len(rows):
            rows.append([])
            room.append(capacity)
        rows[number].append(i)
        room[number] -= sizes[i]
    return rows


def can_pack(model: Any) -> bool:
    """Whether a model takes a mask over pairs of tokens, and attends over the whole row.

    Args:
        model: a transformers model; sliding windows and recurrent layers would ignore the mask.
    """
    return takes_masks_over_pairs(model) and layer_kinds(model.config) == {"full_attention"}


def check_packing(model: Any, pack_tokens: int) -> None:
    """Raises UserError where packed examples would see each other in this model."""
    if pack_tokens and not can_pack(model):
        raise UserError(
            f"pack_tokens is {pack_tokens}, but {type(model).__name__} does not attend by a mask "
            "over pairs of tokens (sliding windows, recurrent layers, or an attention that is not "
            "sdpa): use --pack_tokens 0"
        )


def _tree(sequences: Sequence[list[int]]) -> tuple[list[int], list[int], list[int], list[int]]:
    """The common beginning, then each rest: ids, positions, branch of each token, ends."""
    shared = 0
    if len(sequences) > 1:
        most = min(map(len, sequences)) - 1  # each keeps a token of its own
        first = sequences[0]
        while shared < most and all(s[shared] == first[shared] for s in sequences):
            shared += 1
    ids = list(sequences[0][:shared])
    positions = list(range(shared))
    branches = [0] * shared
    ends = []
    for branch, sequence in enumerate(sequences, start=1):
        ids += sequence[shared:]
        positions += range(shared, len(sequence))
        branches += [branch] * (len(sequence) - shared)
        ends.append(len(ids) - 1)
    return ids, positions, branches, ends


def _visible(owners: Tensor, branches: Tensor) -> Tensor:
    """`[rows, 1, width, width]`: earlier tokens of the own branch or of the shared beginning."""
    same_group = owners.unsqueeze(2) == owners.unsqueeze(1)
    before = branches.unsqueeze(1)
    same_branch = (before == 0) | (before == branches.unsqueeze(2))
    width = owners.shape[1]
    causal = torch.ones(width, width, dtype=torch.bool, device=owners.device).tril()
    return (same_group & same_branch & causal).unsqueeze(1)
