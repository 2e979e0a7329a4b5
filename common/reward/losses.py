"""Pairwise ranking losses of the reward model, one value a pair."""

import torch
from torch import Tensor


def margin_loss(better: Tensor, worse: Tensor, margin: float) -> Tensor:
    """max(0, margin − R(s, a_i) + R(s, a_j)), the paper's loss (§3.2).

    Args:
        better, worse: `[pairs]`, raw scores of the preferred and of the other response.
        margin: in units of the raw score.

    Returns:
        `[pairs]` float32.
    """
    return (margin - better.float() + worse.float()).clamp(min=0.0)


def logistic_loss(better: Tensor, worse: Tensor) -> Tensor:
    """−log σ(R(s, a_i) − R(s, a_j)), the Bradley–Terry alternative (Ouyang et al. 2022, eq. 1).

    Args:
        better, worse: `[pairs]`, raw scores.

    Returns:
        `[pairs]` float32.
    """
    return torch.nn.functional.softplus(worse.float() - better.float())
