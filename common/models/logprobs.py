"""Log-probabilities, entropies and positions of tokens."""

import torch
from torch import Tensor


def position_ids(attention_mask: Tensor) -> Tensor:
    """Positions that count real tokens only, `[batch, width]`; padding on the left gets 0.

    Told in every forward, so that a row's numbers do not depend on its padding.
    """
    return (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)


def token_logprobs(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """log softmax(logits / temperature) at `tokens`.

    Args:
        logits: `[…, vocabulary]`.
        tokens: `[…]` int64, of the same leading dimensions.

    Returns:
        `[…]` float32.
    """
    scaled = logits.float() if temperature == 1.0 else logits.float() / temperature
    flat = scaled.reshape(-1, scaled.shape[-1])
    losses = torch.nn.functional.cross_entropy(flat, tokens.reshape(-1), reduction="none")
    return -losses.view(tokens.shape)


def logprobs_and_entropy(
    logits: Tensor, tokens: Tensor, temperature: float = 1.0, *, gradient: bool = False
) -> tuple[Tensor, Tensor]:
    """What `token_logprobs` gives, and the entropy of softmax(logits / temperature), in nats.

    Args:
        logits: `[tokens, vocabulary]`.
        gradient: the entropy has one, too.

    Returns:
        `[tokens]` float32 each.
    """
    logs = torch.log_softmax(logits.float() / temperature, dim=-1)
    with torch.set_grad_enabled(gradient and torch.is_grad_enabled()):
        spread = -(logs.exp() * logs).sum(dim=-1)
    return -torch.nn.functional.nll_loss(logs, tokens, reduction="none"), spread
