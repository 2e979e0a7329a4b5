"""Log-probabilities, entropies and positions of tokens."""

import torch
from torch import Tensor


def position_ids(attention_mask: Tensor) -> Tensor:
    """Positions that count real tokens only, `[batch, width]`; padding on the left gets 0.

    Passed in every forward, so that a row's numbers do not depend on its padding.
    """
    return (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)


def closed_up_inputs(input_ids: Tensor) -> dict[str, Tensor | None]:
    """What a causal model is told of rows whose padding is all behind them (see `close_up`).

    No mask: no real token sees what comes after it. Positions go on into the padding, as breaks
    in them would mean packed sequences to transformers.
    """
    positions = torch.arange(input_ids.shape[1], device=input_ids.device)
    return {"attention_mask": None, "position_ids": positions.expand(input_ids.shape)}


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


def entropy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy of softmax(logits / temperature), `[…]` float32, in nats."""
    logs = torch.log_softmax(logits.float() / temperature, dim=-1)
    return -(logs.exp() * logs).sum(dim=-1)
