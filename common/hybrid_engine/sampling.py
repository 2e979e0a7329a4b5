"""The next token of each row: penalties and filters, then one draw."""

from typing import NamedTuple

import torch
from torch import Tensor

from common.config.arguments import SamplingArguments


class Choice(NamedTuple):
    """One token a row."""

    tokens: Tensor
    """`[rows]` int64."""
    logprobs: Tensor
    """`[rows]` float32, nats: at the sampling temperature, before penalties and filters."""


def choose_tokens(
    logits: Tensor,
    sampling: SamplingArguments,
    draws: Tensor | None,
    *,
    seen: Tensor | None = None,
    barred: Tensor | None = None,
    eos_id: int = 0,
) -> Choice:
    """Draws a token a row by inverting the cumulative distribution.

    In order: repetition penalty, a bar on the end token, temperature, top-k, top-p; the likeliest
    token always stays.

    Args:
        logits: `[rows, vocabulary]`.
        draws: `[rows]` float64 in [0, 1); None takes the likeliest token, and its log-probability
            at temperature 1.
        seen: `[rows, vocabulary]` bool: tokens that the repetition penalty is for.
        barred: `[rows]` bool: rows that may not end yet.
        eos_id: the end token.
    """
    scaled = logits.float()
    if draws is not None and sampling.temperature != 1.0:
        scaled = scaled / sampling.temperature
    chances = scaled.softmax(dim=-1)
    allowed = scaled
    if seen is not None:
        allowed = penalize_repetition(allowed, seen, sampling.repetition_penalty)
    if barred is not None:
        is_end = torch.arange(logits.shape[-1], device=logits.device) == eos_id
        allowed = allowed.masked_fill(barred.unsqueeze(1) & is_end, -torch.inf)
    if draws is None:
        tokens = allowed.argmax(dim=-1)
    else:
        if sampling.top_k > 0:
            least = allowed.topk(min(sampling.top_k, allowed.shape[-1]), dim=-1).values[:, -1:]
            allowed = allowed.masked_fill(allowed < least, -torch.inf)
        weights = chances if allowed is scaled else allowed.softmax(dim=-1)
        if sampling.top_p < 1.0:
            weights = likeliest(weights, sampling.top_p)
        cumulative = weights.cumsum(dim=-1, dtype=torch.float64)
        target = draws.unsqueeze(1) * cumulative[:, -1:]
        tokens = torch.searchsorted(cumulative, target, right=True).squeeze(1)
        tokens = tokens.clamp(max=logits.shape[-1] - 1)  # logits that are NaN: a check follows
    places = tokens.unsqueeze(1)
    if allowed is scaled:
        logprobs = chances.gather(-1, places).log()
    else:  # a token that a penalty preferred may be too unlikely for a float32's probability
        logprobs = scaled.gather(-1, places) - scaled.logsumexp(dim=-1, keepdim=True)
    return Choice(tokens, logprobs.squeeze(1))


def penalize_repetition(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Divides positive logits of seen tokens by the penalty, multiplies negative ones.

    Keskar et al., CTRL (2019), §4.1, in the form that transformers gives it.
    """
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def likeliest(weights: Tensor, share: float) -> Tensor:
    """Sets to 0 all but the likeliest tokens that together reach `share` (Holtzman et al. 2020).

    Args:
        weights: `[rows, vocabulary]`, each row summing to 1.
    """
    ordered, order = weights.sort(dim=-1, descending=True)
    before = ordered.cumsum(dim=-1, dtype=torch.float64) - ordered
    out = torch.zeros_like(before, dtype=torch.bool).scatter(1, order, before >= share)
    return weights.masked_fill(out, 0.0)
