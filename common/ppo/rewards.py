"""From scores of a sequence to a reward at every token."""

from collections.abc import Sequence

import torch
from torch import Tensor


def weighted_scores(
    scores: Sequence[Tensor],
    means: Sequence[float],
    stds: Sequence[float],
    weights: Sequence[float],
) -> Tensor:
    """Σ_i w_i · (x_i − μ_i) / σ_i over the sources of rewards: each normalized, then weighted.

    Args:
        scores: `[batch]` raw scores of each source.
        means, stds: μ and σ of each source's raw scores, for a reward model those over reference
            responses (`score_mean`, `score_std` of its config).

    Returns:
        `[batch]` float32, in deviations.
    """
    parts = zip(scores, means, stds, weights, strict=True)
    return torch.stack([w * ((x.float() - mean) / std) for x, mean, std, w in parts]).sum(dim=0)


def clipped_scores(scores: Tensor, clip: float, ended: Tensor, no_end_score: float) -> Tensor:
    """Normalized scores as PPO sees them: clipped, truncation punished.

    A response that never produced its end token gets `no_end_score` *instead of* a score: a
    reward model has only seen finished responses. There is no bootstrapping.

    Args:
        scores: `[batch]`, of `weighted_scores`.
        clip: scores are limited to ± this many deviations (before any KL is subtracted).
        ended: `[batch]` bool, whether the response ended by itself.
        no_end_score: what a truncated response is worth, in deviations.

    Returns:
        `[batch]` float32.
    """
    clipped = scores.clamp(-clip, clip)
    return torch.where(ended, clipped, torch.full_like(clipped, no_end_score))


def score_penalties(
    ids: Tensor, mask: Tensor, per_token: float, for_repeats: float, size: int
) -> Tensor:
    """What is taken off each response's score, in deviations: for its length, and for repeats.

    Args:
        ids: `[batch, response]` int64, the responses' tokens.
        mask: `[batch, response]` bool.
        per_token: penalty of each token.
        for_repeats: penalty of a response all of whose n-grams repeat earlier ones.
        size: tokens of an n-gram.

    Returns:
        `[batch]` float32.
    """
    penalties = per_token * mask.sum(dim=1).float()
    if for_repeats:
        penalties = penalties + for_repeats * repeated_share(ids, mask, size)
    return penalties


def repeated_share(ids: Tensor, mask: Tensor, size: int) -> Tensor:
    """Share of each response's n-grams that it has had before, `[batch]` float32 in [0, 1).

    0 where a response has no n-gram of that size. Arguments as of `score_penalties`.
    """
    shares = ids.new_zeros(len(ids), dtype=torch.float32)
    places = ids.shape[1] - size + 1
    if places < 1:
        return shares
    grams = ids.unfold(1, size, 1)  # [batch, places, size]
    whole = mask.unfold(1, size, 1).all(dim=-1)
    # Equal n-grams get equal numbers, and stand side by side once a row is sorted.
    numbers = grams.flatten(0, 1).unique(dim=0, return_inverse=True)[1].view_as(whole)
    nothing = -1 - torch.arange(places, device=ids.device)  # what reaches into padding equals none
    ordered = torch.where(whole, numbers, nothing).sort(dim=1).values
    repeated = ordered[:, 1:] == ordered[:, :-1]
    return repeated.sum(dim=1) / whole.sum(dim=1).clamp(min=1)


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
