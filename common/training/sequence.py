"""Long sequences: several ranks share each row, by DeepSpeed's sequence parallelism (Ulysses).

Each rank of a group holds a slice of every row's tokens; only for attention do they exchange
slices of tokens for shares of the heads (https://arxiv.org/abs/2309.14509). Activations and their
gradients are then divided by the group's size.

The losses here are sums over tokens, each counted by the rank that holds it. So a step's gradient
is right without a word to DeepSpeed's engine: it averages over all ranks, and what it averages was
multiplied by their number (`common.training.engine.optimizer_step`).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from common.config.arguments import OptimizerArguments
from common.errors import UserError
from common.models.attention import layer_kinds
from common.training.batching import BatchShape
from common.training.distributed import rank, world_size


class DataRank(NamedTuple):
    """This rank's place among those that read different rows."""

    number: int
    count: int


def data_rank(sequence_ranks: int = 1) -> DataRank:
    """Ranks that lie side by side read the same rows, `sequence_ranks` of them each."""
    return DataRank(rank() // sequence_ranks, world_size() // sequence_ranks)


def share_sequences(model: Any, sequence_ranks: int, optimizer: OptimizerArguments) -> int:
    """From here on, attention in this process is over the rows of `sequence_ranks` ranks.

    Args:
        model: a transformers model, or a `PolicyModel`, whose making runs it once as it was.

    Returns:
        rows of a forward in evaluation: `eval_batch_size`, or, where ranks share rows, as many as
        in training, because DeepSpeed wants all forwards alike.

    Raises:
        UserError: ranks or heads that don't divide; a model that DeepSpeed cannot do this for.
    """
    if sequence_ranks == 1:
        return optimizer.eval_batch_size
    if world_size() % sequence_ranks:
        raise UserError(
            f"sequence_ranks is {sequence_ranks}, but {world_size()} ranks do not divide by it"
        )
    readers = data_rank(sequence_ranks).count
    rows = BatchShape(optimizer.batch_size, optimizer.micro_batch_size, readers).micro_batch_size
    from deepspeed.runtime.sequence_parallel.ulysses_sp import UlyssesSPAttentionHF

    config = model.config
    refused = f"sequence_ranks is {sequence_ranks}, but {config.model_type} models "
    if layer_kinds(config) != {"full_attention"}:
        raise UserError(f"{refused}do not attend to the whole row in every layer: use 1")
    if not hasattr(config, "num_key_value_heads"):  # OPT, GPT-2
        raise UserError(f"{refused}are not supported by the installed DeepSpeed: use 1")
    try:
        UlyssesSPAttentionHF.register_with_transformers(
            getattr(model, "inner", model),
            core_attn_implementation=config._attn_implementation,
            sequence_parallel_size=sequence_ranks,
            micro_batch_size=rows,
        )
    except ValueError as error:
        raise UserError(f"{refused}cannot be shared so: {error}") from None
    return rows


class Slice(NamedTuple):
    """What one rank of a group has of a batch."""

    inputs: dict[str, Tensor | None]
    """`input_ids`, `attention_mask`, `position_ids` for the model: `[batch, width / ranks]`."""
    places: Tensor
    """`[batch, width]` int64: where each token of the batch stands in the flattened slice; −1 for
    tokens that other ranks have."""


def own_slice(input_ids: Tensor, attention_mask: Tensor, sequence_ranks: int) -> Slice:
    """This rank's share of a batch's columns, the last of them filled up.

    Args:
        input_ids, attention_mask: `[batch, width]`, padding on the right only: no real token sees
            what stands behind its row's last one, and no mask is needed.
    """
    rows, width = input_ids.shape
    share = -(-width // sequence_ranks)
    first = rank() % sequence_ranks * share
    padded = pad(input_ids * attention_mask.bool(), (0, share * sequence_ranks - width))
    columns = torch.arange(first, first + share, device=input_ids.device)
    own = torch.arange(width, device=input_ids.device) - first
    starts = torch.arange(rows, device=input_ids.device).unsqueeze(1) * share
    inputs = {
        "input_ids": padded[:, columns],
        "attention_mask": None,
        "position_ids": columns.expand(rows, -1).contiguous(),
    }
    return Slice(inputs, torch.where((own >= 0) & (own < share), starts + own, -1))
