"""From one score a sequence to a reward at every token."""

import torch
from torch import Tensor


def normalized_scores(
    scores: Tensor, mean: float, std: float, clip: float, ended: Tensor, no_end_score: float
) -> Tensor:
    """The reward model's scores as PPO sees them: standardized, clipped, truncation punished.

    A response that never produced its end token gets `no_end_score` *instead of* a score: the
    reward model has only seen finished responses. There is no bootstrapping.

    Args:
        scores: `[batch]`, raw scores of the reward model.
        mean, std: of raw scores over reference responses (`score_mean`, `score_std` of the model).
        clip: scores are limited to ± this many deviations (before any KL is subtracted).
        ended: `[batch]` bool, whether the response ended by itself.
        no_end_score: what a truncated response is worth, in deviations.

    Returns:
        `[batch]` float32.
    """
    normalized = ((scores.float() - mean) / std).clamp(-clip, clip)
    return torch.where(ended, normalized, torch.full_like(normalized, no_end_score))


def token_rewards(scores: Tensor, kl: Tensor, coefficient: float, mask: Tensor) -> Tensor:
    """r_t = −β·k1_t + 1[t = T−1]·s, with T−1 the last unmasked action (§3.3.4, KL control).

    Args:
        scores: `[batch]`, normalized scores s.
        kl: `[batch, response]`, the k1 estimate at each token.
        coefficient: β.
        mask: `[batch, response]` bool.

    Returns:
        `[batch, response]` float32, 0 where masked. A row without any unmasked token gets none.
    """
    rewards = -coefficient * kl.masked_fill(~mask, 0.0).float()
    lengths = mask.sum(dim=1)
    last = (lengths - 1).clamp(min=0).unsqueeze(1)
    terminal = scores.float().masked_fill(lengths == 0, 0.0).unsqueeze(1)
    return rewards.scatter_add(1, last, terminal)
