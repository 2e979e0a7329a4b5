"""What must hold before the first update; each has silently failed in somebody's RLHF.

Every check raises `UserError` with what was found, on all ranks together.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import UserError
from common.hybrid_engine.rollout import Rollout
from common.models.policy import score_responses
from common.models.scalar import last_token_scores
from common.ppo.experience import Experience, chunks
from common.training.distributed import gather_objects


def tolerance(dtype: torch.dtype) -> float:
    """How far two forwards of the same weights may differ, in nats (or score deviations)."""
    return 1e-3 if dtype == torch.float32 else 0.1


def check_vocabulary(actor: Any, other: Any, name: str) -> None:
    """Vocabulary and special tokens of a model that reads the actor's token ids agree with its.

    The other tokenizer may have further tokens (a pad token of its own).
    """
    for field in ("bos_token_id", "eos_token_id"):
        if getattr(actor, field) != getattr(other, field):
            raise UserError(
                f"{field} is {getattr(actor, field)} for the actor and {getattr(other, field)} for "
                f"the {name}; both must share one tokenizer"
            )
    theirs = other.get_vocab()
    for token, number in actor.get_vocab().items():
        if theirs.get(token) != number:
            raise UserError(
                f"token {token!r} is {number} for the actor and {theirs.get(token)} for the "
                f"{name}; both must share one tokenizer"
            )


def check_embeddings(model: nn.Module, tokenizer: Any, name: str) -> None:
    """Every token id has a row in the embedding matrix."""
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise UserError(f"{name}: the tokenizer has {len(tokenizer)} tokens, the model only {rows}")


@torch.no_grad()
def check_ratio(
    actor: nn.Module, rollout: Rollout, experience: Experience, temperature: float, limit: float
) -> None:
    """Before the first update the policy that trains is the one that sampled: the ratio is 1.

    Computed in training mode over other micro-batches (other padding) than the old
    log-probabilities were, so that dropout or padding that leaks in would show. A collective.
    """
    gaps = []
    actor.train()
    for rows, ids, attention, width in chunks(rollout, max(1, len(experience) // 3)):
        new = score_responses(actor, ids, attention, width, temperature).logprobs
        gap = (new - experience.logprobs[rows, :width]).abs()
        gaps.append(gap.masked_fill(~experience.mask[rows, :width], 0.0).max())
    worst = _largest(gaps)
    _stop(
        worst > limit,
        f"before any update the policy's log-probabilities differ by {worst:.2g} nats from those "
        f"of the rollout (limit {limit:g}): dropout is on, or padding leaks into the forward",
    )


def check_reference(experience: Experience, limit: float) -> None:
    """At step 0 of a fresh run the actor *is* the reference: KL is 0. A collective."""
    gap = (experience.logprobs - experience.ref_logprobs).masked_fill(~experience.mask, 0.0)
    worst = _largest([gap.abs().max()])
    _stop(
        worst > limit,
        f"at step 0 actor and reference differ by {worst:.2g} nats at a token (limit {limit:g}): "
        "they were loaded from different weights, or sharding changed one of them",
    )


@torch.no_grad()
def check_reward_padding(
    model: nn.Module, input_ids: Tensor, attention_mask: Tensor, pad_id: int, limit: float
) -> None:
    """The reward model's score does not depend on the side or amount of padding. A collective.

    Args:
        input_ids, attention_mask: `[batch, width]`; a few rows are enough.
        limit: largest difference allowed, in units of the raw score.
    """
    plain = last_token_scores(model(input_ids, attention_mask), attention_mask)
    gaps = []
    for left, right in ((3, 0), (0, 5), (7, 2)):
        ids = nn.functional.pad(input_ids, (left, right), value=pad_id)
        mask = nn.functional.pad(attention_mask, (left, right), value=False)
        padded = last_token_scores(model(ids, mask), mask)
        gaps.append((padded - plain).abs().max())
    for row, (ids, mask) in enumerate(zip(input_ids, attention_mask.bool(), strict=True)):
        alone = ids[mask].unsqueeze(0)  # without the padding that its neighbours give it
        score = model(alone, torch.ones_like(alone).bool())[0, -1]
        gaps.append((score - plain[row]).abs())
    worst = _largest(gaps)
    _stop(
        worst > limit,
        f"the reward model's score changes by {worst:.2g} with padding (limit {limit:.2g}): "
        "position_ids or the attention mask do not reach its backbone",
    )


def _largest(gaps: list[Tensor]) -> float:
    """The largest of all ranks' gaps, so that all decide alike and name it; NaN is infinite."""
    worst = float(torch.stack(gaps).max())
    found = gather_objects(math.inf if math.isnan(worst) else worst)
    return max(found)  # type: ignore[type-var]


def _stop(failed: bool, message: str) -> None:
    if failed:
        raise UserError(f"start-up check failed: {message}")
