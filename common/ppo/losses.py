"""The clipped policy and value objectives, as sums over tokens.

Sums, not means: the mean over tokens divides by the token count of the whole optimizer step, over
micro-batches and ranks, which only the training loop knows (`common.training.engine`).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from common.ppo.kl import LOG_RATIO_LIMIT


class PolicyLoss(NamedTuple):
    """All scalars, float32, summed over unmasked tokens."""

    loss: Tensor
    clipped: Tensor
    """Number of tokens at which the clipped term was the smaller one."""
    approx_kl: Tensor
    """Σ (ratio − 1 − log ratio): k3 of the new policy against the one that sampled."""


class ValueLoss(NamedTuple):
    """All scalars, float32, summed over unmasked tokens."""

    loss: Tensor
    clipped: Tensor
    """Number of tokens at which the clipped error was the larger one."""


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_range: float,
    dual_clip: float | None = None,
) -> PolicyLoss:
    """−Σ min(ratio·A, clip(ratio, 1−ε, 1+ε)·A), equation (3) of the paper (§3.3.2).

    With `dual_clip` c, where A < 0, −Σ max(that, c·A): a token that has become much likelier
    although it was bad does not pull without bound (Ye et al. 2020, https://arxiv.org/abs/1912.09729,
    eq. 5).

    Args:
        logprobs: `[batch, response]`, of the policy that is being trained.
        old_logprobs: `[batch, response]`, of the policy that sampled, by the same forward.
        advantages: `[batch, response]`.
        mask: `[batch, response]` bool.
        clip_range: ε.
        dual_clip: c, above 1.
    """
    log_ratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0)
    log_ratio = log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    ratio = log_ratio.exp()
    advantages = advantages.masked_fill(~mask, 0.0)
    surrogate = ratio * advantages
    clipped = ratio.clamp(1.0 - clip_range, 1.0 + clip_range) * advantages
    objective = torch.minimum(surrogate, clipped)
    if dual_clip is not None:
        floored = torch.maximum(objective, dual_clip * advantages)
        objective = torch.where(advantages < 0, floored, objective)
    return PolicyLoss(
        loss=-objective.sum(),
        clipped=(clipped < surrogate).sum().float(),
        approx_kl=(torch.expm1(log_ratio) - log_ratio).detach().sum(),
    )


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip_range: float
) -> ValueLoss:
    """½·Σ max((V − R)², (V_old + clip(V − V_old, ±ε_v) − R)²): value clipping of §3.3.4.

    Args:
        values: `[batch, response]`, of the critic that is being trained.
        old_values: `[batch, response]`, of the critic when the rollout was made.
        returns: `[batch, response]`, advantages (before normalization) + old values.
        mask: `[batch, response]` bool.
        clip_range: ε_v, in units of the score.
    """
    values, old_values, returns = (
        x.float().masked_fill(~mask, 0.0) for x in (values, old_values, returns)
    )
    # Not old + clip(v − old): rounding would make unclipped values look clipped.
    limited = values.clamp(old_values - clip_range, old_values + clip_range)
    plain_error = (values - returns) ** 2
    limited_error = (limited - returns) ** 2
    return ValueLoss(
        loss=0.5 * torch.maximum(plain_error, limited_error).sum(),
        clipped=(limited_error > plain_error).sum().float(),
    )
