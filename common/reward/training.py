"""Training ICE-Reward on pairs (paper §3.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from common.config.arguments import option
from common.data.encoding import Comparison
from common.models.scalar import last_token_scores
from common.reward.losses import logistic_loss, margin_loss
from common.training.distributed import device
from common.training.packing import pack
from common.training.padding import right_pad
from common.training.preferences import pair_rows


@dataclass
class RewardArguments:
    """The pairwise objective."""

    loss: Literal["margin", "logistic"] = option("margin", "the paper's hinge, or Bradley-Terry")
    margin: float = option(1.0, "margin of the hinge, in units of the raw score")
    score_penalty: float = option(
        1e-3, "weight of the mean squared score: keeps scores near 0, which pairs leave free"
    )


class PairObjective:
    """Comparisons with their loss (see `common.training.supervised.Objective`).

    All pairs of a prompt are one example: a response that is in several pairs goes through the
    model once, and does not overfit as it would in several steps (Ouyang et al. 2022, §3.5). The
    mean is over pairs.
    """

    def __init__(
        self,
        comparisons: Sequence[Comparison],
        pad_id: int,
        settings: RewardArguments,
        *,
        share_prompts: bool,
    ) -> None:
        """Args:
        share_prompts: a prompt goes through the model once for all its responses, packed into
            one row; the model must allow it (`can_pack`).
        """
        self.comparisons = comparisons
        self.pad_id = pad_id
        self.settings = settings
        self.share_prompts = share_prompts
        self.lengths = [max(map(len, c.rows)) for c in comparisons]
        self.weights = [float(len(c.pairs)) for c in comparisons]

    def loss(self, model: Any, indices: np.ndarray) -> tuple[Tensor, dict[str, Tensor]]:
        """Summed pair loss; and how many pairs are in the right order."""
        better, worse, real = self.scores(model, indices)
        if self.settings.loss == "margin":
            losses = margin_loss(better, worse, self.settings.margin)
        else:
            losses = logistic_loss(better, worse)
        losses = losses + self.settings.score_penalty * 0.5 * (better**2 + worse**2)
        return losses.masked_fill(~real, 0.0).sum(), {
            "accuracy": ((better > worse) & real).sum().float()
        }

    def scores(self, model: Any, indices: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Raw scores of the preferred and of the other responses of all pairs in these examples.

        Returns:
            better, worse and whether the pair counts (a filler's do not), each `[pairs]`.
        """
        chosen = [self.comparisons[max(i, 0)] for i in indices]
        scores = self._row_scores(model, [c.rows for c in chosen])
        better, worse, real = pair_rows(chosen, indices)
        return scores[better], scores[worse], real

    def _row_scores(self, model: Any, groups: list[list[list[int]]]) -> Tensor:
        """Raw scores of all rows of all groups, in order; `[rows]`."""
        if self.share_prompts:
            packed = pack(groups, self.pad_id, capacity=0)
            outputs = model(packed.input_ids, packed.attention_mask, packed.position_ids)
            ends = torch.tensor([end for group in packed.ends for end in group])
            return outputs.flatten()[ends.to(outputs.device)]
        rows = [row for group in groups for row in group]
        ids, mask = (x.to(device()) for x in right_pad(rows, self.pad_id))
        return last_token_scores(model(ids, mask), mask)

    def origin(self, index: int) -> str:
        """File and line of an example's first pair."""
        return self.comparisons[index].records[0].origin
