"""Training ICE-Reward on pairs (paper §3.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from common.config.arguments import TextArguments, option
from common.data.encoding import fit_prompt, refuse_empty
from common.data.records import Pair
from common.data.template import Template
from common.hybrid_engine.generation import right_pad
from common.models.scalar import last_token_scores
from common.reward.losses import logistic_loss, margin_loss
from common.training.batching import FILLER
from common.training.distributed import device


@dataclass
class RewardArguments:
    """The pairwise objective."""

    loss: Literal["margin", "logistic"] = option("margin", "the paper's hinge, or Bradley-Terry")
    margin: float = option(1.0, "margin of the hinge, in units of the raw score")
    score_penalty: float = option(
        1e-3, "weight of the mean squared score: keeps scores near 0, which pairs leave free"
    )


@dataclass(frozen=True)
class EncodedPair:
    """A pair as token ids: prompt + response + end token, for either response."""

    chosen: list[int]
    rejected: list[int]
    pair: Pair


class PairObjective:
    """Encoded pairs with their loss (see `common.training.supervised.Objective`)."""

    def __init__(
        self, pairs: Sequence[EncodedPair], pad_id: int, settings: RewardArguments
    ) -> None:
        self.pairs = pairs
        self.pad_id = pad_id
        self.settings = settings
        self.lengths = [max(len(p.chosen), len(p.rejected)) for p in pairs]
        self.weights = [1.0] * len(pairs)

    def loss(self, model: Any, indices: np.ndarray) -> tuple[Tensor, dict[str, Tensor]]:
        """Summed pair loss; and how many pairs are in the right order."""
        better, worse = self.scores(model, indices)
        real = torch.tensor([i != FILLER for i in indices], device=better.device)
        if self.settings.loss == "margin":
            losses = margin_loss(better, worse, self.settings.margin)
        else:
            losses = logistic_loss(better, worse)
        losses = losses + self.settings.score_penalty * 0.5 * (better**2 + worse**2)
        return losses.masked_fill(~real, 0.0).sum(), {
            "accuracy": ((better > worse) & real).sum().float()
        }

    def scores(self, model: Any, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        """Raw scores of the preferred and of the other responses, each `[len(indices)]`.

        Both sides go through one forward: rows 0 … n−1 are preferred, n … 2n−1 the others.
        """
        chosen = [self.pairs[max(i, 0)] for i in indices]
        rows = [p.chosen for p in chosen] + [p.rejected for p in chosen]
        ids, mask = (x.to(device()) for x in right_pad(rows, self.pad_id))
        scores = last_token_scores(model(ids, mask), mask)
        return scores[: len(chosen)], scores[len(chosen) :]

    def origin(self, index: int) -> str:
        """File and line of a pair."""
        return self.pairs[index].pair.origin


def encode_pairs(
    pairs: Sequence[Pair], template: Template, settings: TextArguments
) -> tuple[list[EncodedPair], dict[str, int]]:
    """Tokenizes pairs; those over the limits are skipped or truncated, and counted.

    A response over `max_response_tokens` is cut before its end token, which stays last: the
    score is read there.

    Raises:
        UserError: a prompt is too long and `long_prompts` is "error"; nothing is left.
    """
    from collections import Counter

    counts: Counter = Counter()
    kept = []
    for pair in pairs:
        ids = template.encode_prompt(pair.messages)
        prompt = fit_prompt(ids, settings, pair.origin, counts)
        if prompt is None:
            continue
        sides = []
        for text in (pair.chosen, pair.rejected):
            response = template.encode_response(text)
            if len(response) > settings.max_response_tokens:
                counts["long responses truncated"] += 1
                response = [*response[: settings.max_response_tokens - 1], response[-1]]
            sides.append(prompt + response)
        if sides[0] == sides[1]:
            counts["pairs equal after truncation"] += 1
            continue
        kept.append(EncodedPair(sides[0], sides[1], pair))
    refuse_empty(len(kept), "pair", settings, counts)
    return kept, dict(counts)
