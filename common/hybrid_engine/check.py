"""Whether the tokens of a rollout had the probabilities that the training forward gives them."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from common.errors import UserError
from common.hybrid_engine.rollout import Rollout
from common.models.policy import score_responses
from common.training.distributed import gather_objects


class WorstToken(NamedTuple):
    """Where sampler and training forward differ most."""

    gap: float
    """Nats; infinite where either is not finite."""
    mean: float
    """Of all tokens' gaps: an error of all of them stays small at each."""
    row: int
    token: int
    """Place in the response, from 0."""
    token_id: int


def default_limit(dtype: torch.dtype) -> float:
    """Largest gap that rounding alone explains, nats; bf16 has three digits.

    Measured in bf16 on a card, 64 responses of 256 tokens, random weights: 7B at most 0.20, in the
    mean 0.035; 13B 0.27 and 0.051.
    """
    return 1e-3 if dtype == torch.float32 else 1.0


def worst_token(rollout: Rollout, logprobs: Tensor) -> WorstToken:
    """The token whose two log-probabilities differ most.

    Args:
        logprobs: `[rows, R]`, of the training forward, for the rollout's first rows.
    """
    rows = len(logprobs)
    mask = rollout.response_mask[:rows]
    gaps = (rollout.logprobs[:rows] - logprobs).abs().nan_to_num(nan=math.inf, posinf=math.inf)
    gaps = gaps.masked_fill(~mask, 0.0)
    mean = float(gaps.sum() / mask.sum())
    row, token = divmod(int(gaps.argmax()), gaps.shape[1])
    token_id = int(rollout.input_ids[row, token - rollout.response_width])
    return WorstToken(float(gaps[row, token]), mean, row, token, token_id)


def check_rollout(rollout: Rollout, logprobs: Tensor, backend: str, limit: float) -> None:
    """Stops all ranks when a backend's probabilities are not the policy's. A collective.

    Args:
        logprobs: see `worst_token`.
        limit: largest gap of a token, nats; the mean may reach a tenth of it.

    Raises:
        UserError: with the backend, the row, the token, and what to use instead.
    """
    found: list[WorstToken] = gather_objects(worst_token(rollout, logprobs))  # type: ignore
    rank = max(range(len(found)), key=lambda r: max(found[r].gap, 10 * found[r].mean))
    worst = found[rank]
    if worst.gap > limit or worst.mean > limit / 10:
        advice = (
            "Use --rollout generate, which is slower"
            if backend != "generate"
            else "This is transformers' own generate: its cache does not fit this model"
        )
        where = f" of rank {rank}" if len(found) > 1 else ""
        raise UserError(
            f"rollout check failed: the backend '{backend}' gave token {worst.token} (id "
            f"{worst.token_id}) of row {worst.row}{where} another probability than the training "
            f"forward does: they differ by {worst.gap:.2g} nats, {worst.mean:.2g} in the mean (at "
            f"most {limit:g} and {limit / 10:g}), so its cache, positions or weights are not the "
            f"policy's. {advice}; --rollout_check_limit allows larger differences"
        )


@torch.no_grad()
def first_rows(model: nn.Module, rollout: Rollout, rows: int, temperature: float) -> Tensor:
    """Log-probabilities of a rollout's first rows by a plain forward, `[rows, R]`."""
    ids, mask = rollout.input_ids[:rows], rollout.attention_mask[:rows]
    return score_responses(model, ids, mask, rollout.response_width, temperature).logprobs
