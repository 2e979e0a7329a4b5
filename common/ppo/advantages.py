"""Generalized advantage estimation (§3.3.1) and advantage normalization (§3.3.4)."""

import torch
from torch import Tensor

from common.training.distributed import all_reduce_sum


def generalized_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """GAE (§3.3.1, eq. 1 and 2): δ_t = r_t + γ·V_{t+1} − V_t, A_t = Σ_l (γλ)^l δ_{t+l}.

    V after the last action is 0: a response ends there, whether by its end token or by the limit.

    Args:
        rewards, values: `[batch, response]`; what they hold where masked does not matter.
        mask: `[batch, response]` bool, True for actions, contiguous from the left.
        gamma: discount γ per token.
        lam: λ of GAE.

    Returns:
        advantages and returns (advantages + values), `[batch, response]` float32, 0 where masked.
    """
    rewards = rewards.float().masked_fill(~mask, 0.0)
    values = values.float().masked_fill(~mask, 0.0)
    next_values = torch.nn.functional.pad(values[:, 1:], (0, 1))
    deltas = rewards + gamma * next_values - values
    advantages = torch.zeros_like(deltas)
    running = torch.zeros_like(deltas[:, 0])
    for t in reversed(range(deltas.shape[1])):
        running = deltas[:, t] + gamma * lam * running
        advantages[:, t] = running
    return advantages, advantages + values


def normalize_advantages(advantages: Tensor, mask: Tensor, eps: float = 1e-8) -> Tensor:
    """Â = (A − μ_A) / (σ_A + eps), the paper's formula (§3.3.4), over the whole rollout batch.

    μ and σ (population deviation) are taken over the unmasked tokens of *all ranks*, once a
    rollout, so that two ranks normalize exactly as one does. A collective: every rank must call it.

    Args:
        advantages: `[batch, response]`.
        mask: `[batch, response]` bool.

    Returns:
        `[batch, response]` float32, 0 where masked.
    """
    kept = advantages.double().masked_fill(~mask, 0.0)
    total, count = all_reduce_sum(torch.stack([kept.sum(), mask.sum().double()]))
    mean = total / count.clamp(min=1)
    centred = (advantages.double() - mean).masked_fill(~mask, 0.0)
    # A second pass rather than E[x²] − E[x]²: it does not cancel when the mean is large.
    squares = all_reduce_sum((centred**2).sum().reshape(1))[0]
    return (centred / ((squares / count.clamp(min=1)).sqrt() + eps)).float()
