"""Sampling responses to prompts with a Hugging Face model (`generate`), in DESIGN's layout."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.config.arguments import SamplingArguments
from common.training.distributed import device
from common.training.seeding import seed_global


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

    Args:
        model: a plain causal language model in eval mode (see `generation_phase`).
        prompts: token ids; a prompt that is given k times gets k independent responses.
        seed: of this call's draws; torch's global generators are put back afterwards.
        greedy: take the likeliest token instead of sampling.

    Returns:
        a `Rollout` in the order of `prompts`, on this rank's device.
    """
    from transformers import GenerationConfig

    ids, mask = (x.to(device()) for x in left_pad(prompts, pad_id))
    settings = GenerationConfig(
        do_sample=not greedy,
        temperature=1.0 if greedy else sampling.temperature,
        top_k=0 if greedy else sampling.top_k,
        top_p=1.0 if greedy else sampling.top_p,
        typical_p=1.0,
        repetition_penalty=1.0,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        eos_token_id=eos_id,
        pad_token_id=pad_id,
        bos_token_id=None,
        use_cache=True,
    )
    devices = [ids.device] if ids.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        seed_global(seed, "sampling")
        sequences = model.generate(
            input_ids=ids, attention_mask=mask.long(), generation_config=settings
        )
    kept, ended = response_mask(sequences[:, ids.shape[1] :], eos_id)
    attention = torch.cat([mask, kept], dim=1)
    sequences = torch.where(attention, sequences, pad_id)
    return Rollout(sequences, attention, kept.shape[1], ended)


def in_batches(count: int, size: int) -> Iterator[slice]:
    """Slices that cover `range(count)` in pieces of at most `size`."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
