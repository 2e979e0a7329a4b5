"""Sampling responses to prompts with any Hugging Face causal model that has a cache."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from common.config.arguments import SamplingArguments
from common.hybrid_engine.cache import PreallocatedCache
from common.models.logprobs import position_ids, token_logprobs
from common.training.distributed import device

CHECK_EVERY = 8
"""Tokens between two looks at which rows have ended."""


@dataclass
class Rollout:
    """A batch of prompts and responses."""

    input_ids: Tensor
    """`[batch, P + R]` int64: prompts left-padded to P, responses right-padded to R."""
    attention_mask: Tensor
    """`[batch, P + R]` bool: True for real tokens, the response's end token included."""
    response_width: int
    """R."""
    ended: Tensor
    """`[batch]` bool: whether the response has its end token."""
    logprobs: Tensor
    """`[batch, R]` float32: of each token as the sampler saw it, at the sampling temperature and
    before any filter; 0 where masked. They check the rollout; PPO's come from its own forward."""

    @property
    def response_mask(self) -> Tensor:
        """`[batch, R]` bool."""
        return self.attention_mask[:, -self.response_width :]

    def response_ids(self) -> list[list[int]]:
        """Each response's token ids, end token included, padding left out."""
        ids = self.input_ids[:, -self.response_width :].tolist()
        lengths = self.response_mask.sum(dim=1).tolist()
        return [row[:n] for row, n in zip(ids, lengths, strict=True)]


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


def response_mask(tokens: Tensor, eos_id: int) -> tuple[Tensor, Tensor]:
    """Which sampled tokens belong to the response: up to the first end token, inclusive.

    By position, not by `token != pad`: pad may equal the end token, and either may be sampled.

    Args:
        tokens: `[batch, R]`.

    Returns:
        mask `[batch, R]` bool, and ended `[batch]` bool.
    """
    is_end = tokens == eos_id
    ends_before = is_end.long().cumsum(dim=1) - is_end.long()
    return ends_before == 0, is_end.any(dim=1)


@torch.no_grad()
def sample_responses(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    eos_id: int,
    pad_id: int,
    max_new_tokens: int,
    sampling: SamplingArguments,
    seed: int,
    greedy: bool = False,
) -> Rollout:
    """Generates one response for each prompt.

    Each distinct prompt goes through the model once, however often it is given, and rows that
    have ended leave the batch. What row i draws depends on `seed` and i alone.

    Args:
        model: a plain causal language model in eval mode (see `generation_phase`).
        prompts: token ids; a prompt that is given k times gets k independent responses.
        seed: of this call's draws; no global generator is read or changed.
        greedy: take the likeliest token instead of sampling.

    Returns:
        a `Rollout` in the order of `prompts`, on this rank's device.
    """
    distinct = list(dict.fromkeys(map(tuple, prompts)))
    place = {prompt: i for i, prompt in enumerate(distinct)}
    rows = torch.tensor([place[tuple(p)] for p in prompts], device=device())
    ids, mask = (x.to(device()) for x in left_pad(distinct, pad_id))
    draws = None if greedy else uniform_draws(seed, len(prompts), max_new_tokens).to(device())

    cache = PreallocatedCache(ids.shape[1] + max_new_tokens)
    outputs = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=position_ids(mask),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    ids, mask = ids[rows], mask[rows]
    if len(distinct) < len(prompts):
        cache.select(rows)
    logits = outputs.logits[rows, -1]
    # The loop's own state covers the rows still at work: `active` says which they are.
    active = torch.arange(len(prompts), device=device())
    seen = torch.nn.functional.pad(mask, (0, max_new_tokens), value=True)
    lengths = mask.sum(dim=1)
    tokens = torch.full((len(prompts), max_new_tokens), pad_id, device=device())
    logprobs = torch.zeros(tokens.shape, device=device())
    temperature = 1.0 if greedy else sampling.temperature
    open_rows = torch.ones_like(active, dtype=torch.bool)
    for step in range(max_new_tokens):
        drawn = None if draws is None else draws[active, step]
        chosen = choose_tokens(logits, sampling, drawn)
        tokens[active, step] = chosen
        logprobs[active, step] = token_logprobs(logits, chosen, temperature)
        open_rows = open_rows & (chosen != eos_id)
        if step + 1 == max_new_tokens:
            break
        if (step + 1) % CHECK_EVERY == 0:  # asking more often would wait for the device more often
            left = open_rows.nonzero().squeeze(1)
            if len(left) == 0:
                break
            if len(left) < len(active):
                cache.select(left)
                active, seen, lengths = active[left], seen[left], lengths[left]
                chosen, open_rows = chosen[left], open_rows[left]
        outputs = model(
            input_ids=chosen.unsqueeze(1),
            attention_mask=seen[:, : ids.shape[1] + step + 1],
            position_ids=(lengths + step).unsqueeze(1),
            past_key_values=cache,
            use_cache=True,
        )
        logits = outputs.logits[:, -1]

    kept, ended = response_mask(tokens, eos_id)
    kept = kept[:, : int(kept.sum(dim=1).max())]
    attention = torch.cat([mask, kept], dim=1)
    sequences = torch.cat([ids, tokens[:, : kept.shape[1]]], dim=1)
    logprobs = logprobs[:, : kept.shape[1]].masked_fill(~kept, 0.0)
    ids = torch.where(attention, sequences, pad_id)
    return Rollout(ids, attention, kept.shape[1], ended, logprobs)


def uniform_draws(seed: int, rows: int, steps: int) -> Tensor:
    """Uniform numbers in [0, 1), `[rows, steps]` float64: row i has a stream of its own."""
    streams = (
        np.random.Generator(np.random.Philox(key=[seed % 2**64, row])).random(steps)
        for row in range(rows)
    )
    return torch.from_numpy(np.stack(list(streams)))


def choose_tokens(logits: Tensor, sampling: SamplingArguments, draws: Tensor | None) -> Tensor:
    """The next token of each row, by inverting the cumulative distribution at `draws`.

    Top-k is applied before top-p; the likeliest token always stays.

    Args:
        logits: `[rows, vocabulary]`.
        draws: `[rows]` float64 in [0, 1); None takes the likeliest token.

    Returns:
        `[rows]` int64.
    """
    if draws is None:
        return logits.argmax(dim=-1)
    scaled = logits.float() / sampling.temperature
    if sampling.top_k > 0:
        least = scaled.topk(min(sampling.top_k, scaled.shape[-1]), dim=-1).values[:, -1:]
        scaled = scaled.masked_fill(scaled < least, -torch.inf)
    probabilities = scaled.softmax(dim=-1)
    if sampling.top_p < 1.0:
        ordered, order = probabilities.sort(dim=-1, descending=True)
        before = ordered.cumsum(dim=-1, dtype=torch.float64) - ordered
        out = torch.zeros_like(before, dtype=torch.bool).scatter(1, order, before >= sampling.top_p)
        probabilities = probabilities.masked_fill(out, 0.0)
    cumulative = probabilities.cumsum(dim=-1, dtype=torch.float64)
    target = draws.unsqueeze(1) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True).squeeze(1)


def in_batches(count: int, size: int) -> Iterator[slice]:
    """Slices that cover `range(count)` in pieces of at most `size`."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
