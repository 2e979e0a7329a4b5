"""Direct Preference Optimization (Rafailov et al. 2023, https://arxiv.org/abs/2305.18290)."""

from torch import Tensor
from torch.nn.functional import softplus


def implicit_rewards(
    logprobs: Tensor, reference: Tensor, beta: float, lengths: Tensor | None = None
) -> Tensor:
    """β·(log π(y|x) − log π_ref(y|x)): the reward by which the policy would be optimal (§4, §5.1).

    Up to a term of the prompt alone, which drops out between two responses to it.

    Args:
        logprobs, reference: `[rows]`, nats: of whole responses, with their end tokens.
        lengths: `[rows]`, tokens of the responses: the rewards are divided by them (not in the
            paper; Meng et al. 2024, https://arxiv.org/abs/2405.14734, compare with it).

    Returns:
        `[rows]` float32.
    """
    rewards = beta * (logprobs.float() - reference.float())
    return rewards if lengths is None else rewards / lengths


def dpo_loss(chosen: Tensor, rejected: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """−log σ(r̂(chosen) − r̂(rejected)), with the implicit rewards r̂ (eq. 7).

    With label smoothing ε it is −(1 − ε)·log σ(m) − ε·log σ(−m) for the difference m, as if a
    share ε of the labels were wrong ("conservative DPO", Mitchell 2023,
    https://ericmitchell.ai/cdpo.pdf): the loss then has its least value at σ(m) = 1 − ε, not at
    infinity.

    Args:
        chosen, rejected: `[pairs]`, implicit rewards.

    Returns:
        `[pairs]` float32; ln 2 where the policy is the reference.
    """
    margins = chosen.float() - rejected.float()
    return (1.0 - label_smoothing) * softplus(-margins) + label_smoothing * softplus(margins)
