"""Log-probabilities of continuations; a context that several share goes through the model once."""

from collections.abc import Sequence
from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import Tensor

from common.models.logprobs import token_logprobs
from common.models.policy import ScoringHead
from common.training.distributed import device
from common.training.packing import can_pack, pack
from common.training.padding import right_pad

Ids = tuple[int, ...]
Pair = tuple[Ids, Ids]
"""Token ids of a context and of a continuation, at least one each."""


class Likelihood(NamedTuple):
    """Of one continuation, given its context."""

    logprob: float
    """Sum over its tokens, nats."""
    greedy: bool
    """Whether each of its tokens is the likeliest one."""


class Arranged(NamedTuple):
    """Sequences as a model is to get them."""

    inputs: dict[str, Tensor | None]
    """`input_ids`, `attention_mask` and `position_ids` of its forward."""
    places: list[dict[Ids, list[int]]]
    """For each group, where each token of each of its sequences stands in the flattened ids."""


@torch.no_grad()
def score_continuations(
    model: Any, groups: Sequence[Sequence[Pair]], max_length: int
) -> list[list[Likelihood]]:
    """log p(continuation | context) of each pair of each group, in one forward.

    As lm-evaluation-harness has it: what is longer than the model's context loses its beginning,
    and the last token, which predicts nothing, is not fed.

    Args:
        model: a language model in eval mode, its weights there (`HybridRollout.phase`).
        groups: pairs that begin alike; none is empty.
        max_length: tokens of the model's context.
    """
    cut = [[(c + rest)[-(max_length + 1) :] for c, rest in group] for group in groups]
    fed = [list(dict.fromkeys(whole[:-1] for whole in wholes)) for wholes in cut]
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    arranged = packed(fed) if can_pack(inner) else padded(fed)
    places: list[int] = []
    targets: list[int] = []
    counts: list[int] = []
    for group, wholes, where in zip(groups, cut, arranged.places, strict=True):
        for (_, continuation), whole in zip(group, wholes, strict=True):
            count = min(len(continuation), len(whole) - 1)
            places += where[whole[:-1]][-count:]
            targets += whole[-count:]
            counts.append(count)
    logits = logits_at(inner, arranged.inputs, torch.tensor(places, device=device()))
    wanted = torch.tensor(targets, device=device())
    parts = zip(
        token_logprobs(logits, wanted).double().split(counts),
        (logits.argmax(dim=-1) == wanted).split(counts),
        strict=True,
    )
    found = iter([Likelihood(float(own.sum()), bool(hits.all())) for own, hits in parts])
    return [[next(found) for _ in group] for group in groups]


def packed(groups: Sequence[Sequence[Ids]]) -> Arranged:
    """Each group's common beginning once, its rests behind it (see `common.training.packing`)."""
    rows = pack([[list(ids) for ids in group] for group in groups], 0, 0)
    places = []
    for group, ends in zip(groups, rows.ends, strict=True):
        start = ends[0] - (len(group[0]) - 1)
        where = {group[0]: list(range(start, ends[0] + 1))}
        for ids, before, end in zip(group[1:], ends, ends[1:], strict=False):
            shared = len(ids) - (end - before)
            where[ids] = [*range(start, start + shared), *range(before + 1, end + 1)]
        places.append(where)
    inputs = {
        "input_ids": rows.input_ids,
        "attention_mask": rows.attention_mask,
        "position_ids": rows.position_ids,
    }
    return Arranged(inputs, places)


def padded(groups: Sequence[Sequence[Ids]]) -> Arranged:
    """A row a sequence. A causal model needs no mask: no token sees what stands behind it."""
    ids, _ = right_pad([row for group in groups for row in group], 0)
    width = ids.shape[1]
    starts = iter(range(0, ids.numel(), width))
    places = [
        {
            row: list(range(start, start + len(row)))
            for row, start in zip(group, starts, strict=False)
        }
        for group in groups
    ]
    positions = torch.arange(width, device=device()).expand_as(ids)
    inputs = {"input_ids": ids.to(device()), "attention_mask": None, "position_ids": positions}
    return Arranged(inputs, places)


def logits_at(model: Any, inputs: dict[str, Tensor | None], places: Tensor) -> Tensor:
    """Logits at some tokens, `[tokens, vocabulary]`.

    Args:
        model: without PEFT's wrapper.
        places: `[tokens]` int64, in the flattened ids.
    """
    head = model.get_output_embeddings()
    if isinstance(head, ScoringHead):  # then its logits are all that the model's are
        hidden = model.base_model(**inputs, use_cache=False).last_hidden_state
        return head(hidden.flatten(0, 1)[places])
    if "logits_to_keep" not in signature(model.forward).parameters:
        return model(**inputs, use_cache=False).logits.flatten(0, 1)[places]
    width = inputs["input_ids"].shape[1]  # type: ignore[union-attr]
    columns, where = (places % width).unique(return_inverse=True)  # not those of whole contexts
    logits = model(**inputs, use_cache=False, logits_to_keep=columns).logits
    return logits[places // width, where]
