"""Pairwise ranking losses of the reward model, one value a pair."""

import torch
from torch import Tensor


def margin_loss(better: Tensor, worse: Tensor, margin: float | Tensor) -> Tensor:
    """max(0, margin − R(s, a_i) + R(s, a_j)), the paper's loss (§3.2).

    Args:
        better, worse: `[pairs]`, raw scores of the preferred and of the other response.
        margin: in units of the raw score; one for all, or `[pairs]`.

    Returns:
        `[pairs]` float32.
    """
    return (margin - better.float() + worse.float()).clamp(min=0.0)


def logistic_loss(better: Tensor, worse: Tensor, margin: float | Tensor = 0.0) -> Tensor:
    """−log σ(R(s, a_i) − R(s, a_j) − m), the Bradley–Terry alternative.

    Without a margin m it is eq. 1 of Ouyang et al. 2022 (https://arxiv.org/abs/2203.02155), with
    one eq. 2 of Touvron et al. 2023 (https://arxiv.org/abs/2307.09288, §3.2.2), where m is larger
    for pairs that are easy to tell apart.

    Args:
        better, worse: `[pairs]`, raw scores.
        margin: in units of the raw score; one for all, or `[pairs]`.

    Returns:
        `[pairs]` float32.
    """
    return torch.nn.functional.softplus(worse.float() - better.float() + margin)


def centring_loss(better: Tensor, worse: Tensor) -> Tensor:
    """(R(s, a_i) + R(s, a_j))²: holds the mean score of a prompt's responses at 0.

    Pairs leave that free, as only differences count (Eisenstein et al. 2023,
    https://arxiv.org/abs/2312.09244, eq. 2; TRL's `center_rewards_coefficient`).

    Args:
        better, worse: `[pairs]`, raw scores.

    Returns:
        `[pairs]` float32.
    """
    return (better.float() + worse.float()) ** 2
