"""Divergence of the actor from the reference: estimators, and control of the coefficient (§3.3.4).

Estimators after http://joschu.net/blog/kl-approx.html, with d = log π_old − log π_ref at a token
that was sampled from π_old.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

LOG_RATIO_LIMIT = 20.0
"""Log-ratios are clamped to ± this before they are exponentiated: e^20 ≈ 5e8 still fits float32."""


def kl_k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """k1 = d, in nats; E[k1] = KL(π_old ‖ π_ref) under π_old. May be negative on one sample.

    Args:
        logprobs, ref_logprobs: `[batch, response]`, float32, log-probabilities of the same tokens.
    """
    return logprobs - ref_logprobs


def kl_k2(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """k2 = d²/2, `[batch, response]`; low variance, but its expectation is not the KL."""
    return 0.5 * (logprobs - ref_logprobs) ** 2


def kl_k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """k3 = e^(−d) − 1 + d, `[batch, response]`, nats, never negative; E[k3] = KL under π_old."""
    d = (logprobs - ref_logprobs).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    return torch.expm1(-d) + d


@dataclass
class KLController:
    """The coefficient β of the KL penalty: fixed, or adapted towards a target.

    Adaptive rule (Ziegler et al. 2019, https://arxiv.org/abs/1909.08593, §2.2):
    β ← β · (1 + clip(KL/target − 1, ±0.2) · sequences/horizon).
    """

    coefficient: float
    """β, in units of (normalized) score per nat."""
    target: float | None = None
    """KL per sequence to steer to, in nats; None keeps β as it is."""
    horizon: float = 10_000.0
    """Number of sequences over which a full error of 0.2 changes β by a factor of 1.2."""

    def update(self, kl_per_sequence: float, sequences: int) -> float:
        """Adapts β to one rollout's mean KL (nats a sequence, over all ranks) and returns it."""
        if self.target is not None:
            error = min(max(kl_per_sequence / self.target - 1.0, -0.2), 0.2)
            self.coefficient *= 1.0 + error * sequences / self.horizon
        return self.coefficient

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint must hold to go on with the same β."""
        return {"coefficient": self.coefficient}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Takes back an adapted β; one that is fixed stays as the settings have it."""
        if self.target is not None:
            self.coefficient = state["coefficient"]
