"""Log-probabilities and entropy of responses under a causal language model."""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class ResponseScores(NamedTuple):
    """What a forward over prompt + response says about the response's tokens."""

    logprobs: Tensor
    """`[batch, response]` float32, nats, at the sampling temperature."""
    entropy: Tensor
    """`[batch, response]` float32, nats: of the whole distribution each token was drawn from."""


def position_ids(attention_mask: Tensor) -> Tensor:
    """Positions that count real tokens only, `[batch, width]`; padding on the left gets 0.

    Passed in every forward, so that a row's numbers do not depend on its padding.
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
    scaled = logits.float() / temperature
    chosen = scaled.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    return chosen - torch.logsumexp(scaled, dim=-1)


def entropy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy of softmax(logits / temperature), `[batch, n]` float32, in nats."""
    logs = torch.log_softmax(logits.float() / temperature, dim=-1)
    return -(logs.exp() * logs).sum(dim=-1)


def score_responses(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    response_width: int,
    temperature: float = 1.0,
    *,
    with_entropy: bool = False,
) -> ResponseScores:
    """Runs the model over prompt + response and reads each response token's log-probability.

    log π_t is read at the token *before* response token t: with inputs of width P + R, columns
    P−1 … P+R−2 of the logits. Only those are projected onto the vocabulary.

    Args:
        model: a causal language model or an engine around one.
        input_ids, attention_mask: `[batch, P + R]`, prompts left-padded, responses right-padded.
        response_width: R.
        with_entropy: else the returned entropy is a tensor of zeros.
    """
    outputs = model(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=position_ids(attention_mask),
        logits_to_keep=response_width + 1,
        use_cache=False,
    )
    logits = outputs.logits[:, :-1]
    logprobs = token_logprobs(logits, input_ids[:, -response_width:], temperature)
    if with_entropy:
        with torch.no_grad():
            spread = entropy(logits, temperature)
    else:
        spread = torch.zeros_like(logprobs)
    return ResponseScores(logprobs, spread)
