"""What generation gives: prompts with the responses sampled for them."""

from dataclasses import dataclass

import torch
from torch import Tensor


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


def assemble(
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    tokens: Tensor,
    logprobs: Tensor,
    eos_id: int,
    pad: int,
    most: Tensor | None = None,
) -> Rollout:
    """Joins prompts and sampled tokens, and blanks what stands behind the ends.

    Args:
        prompt_ids, prompt_mask: `[batch, P]`, left-padded.
        tokens, logprobs: `[batch, R]`; anything may stand behind an end token.
        most: `[batch]` int64: tokens that count at most; by default all R.
    """
    kept, ended = response_mask(tokens, eos_id)
    if most is not None:
        kept &= torch.arange(tokens.shape[1], device=tokens.device) < most.unsqueeze(1)
        ended = (kept & (tokens == eos_id)).any(dim=1)
    kept = kept[:, : max(1, int(kept.sum(dim=1).max()))]
    width = kept.shape[1]
    attention = prompt_mask.new_empty(len(tokens), prompt_mask.shape[1] + width)
    attention[:, :-width], attention[:, -width:] = prompt_mask, kept
    ids = prompt_ids.new_full(attention.shape, pad)
    ids[:, :-width], ids[:, -width:] = prompt_ids, tokens[:, :width]
    ids = ids.masked_fill(~attention, pad)
    return Rollout(ids, attention, width, ended, logprobs[:, :width].masked_fill(~kept, 0.0))
