"""Training ICE-Reward on pairs (paper §3.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from common.config.arguments import check_range, option
from common.data.encoding import Comparison
from common.models.scalar import last_token_scores
from common.reward.losses import centring_loss, logistic_loss, margin_loss
from common.training.distributed import device
from common.training.packing import pack
from common.training.padding import right_pad
from common.training.preferences import pair_rows


@dataclass
class RewardArguments:
    """The pairwise objective."""

    loss: Literal["margin", "logistic"] = option("margin", "the paper's hinge, or Bradley-Terry")
    margin: float = option(
        1.0,
        "margin of the hinge, in units of the raw score, where a pair does not bring its own; the "
        "logistic loss has a margin only where pairs bring theirs",
    )
    score_penalty: float = option(
        1e-3, "weight of the mean squared score: keeps scores near 0, which pairs leave free"
    )
    center_rewards_coefficient: float = option(
        0.0, "weight of the mean squared sum of a pair's two scores: centres each prompt's at 0"
    )

    def __post_init__(self) -> None:
        check_range(self, 0, "margin", "score_penalty", "center_rewards_coefficient")


class PairObjective:
    """Comparisons with their loss (see `common.training.supervised.Objective`).

    All pairs of a prompt are one example: a response that is in several pairs goes through the
    model once, and does not overfit as it would in several steps (Ouyang et al. 2022, §3.5). The
    mean is over pairs, by their weights: it divides by the summed weight of the whole step.
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
        self.weights = [sum(p.weight for p in c.records) for c in comparisons]

    def loss(self, model: Any, indices: np.ndarray) -> tuple[Tensor, dict[str, Tensor]]:
        """Summed weighted loss of the pairs; and the weight of those in the right order."""
        chosen = [self.comparisons[max(i, 0)] for i in indices]
        scores = self.row_scores(model, indices)
        preferred, other, weights = pair_rows(chosen, indices)
        better, worse = scores[preferred], scores[other]
        s = self.settings
        default = s.margin if s.loss == "margin" else 0.0
        margins = torch.tensor(
            [default if p.margin is None else p.margin for c in chosen for p in c.records],
            device=scores.device,
        )
        loss_of = margin_loss if s.loss == "margin" else logistic_loss
        losses = loss_of(better, worse, margins)
        losses = losses + s.score_penalty * 0.5 * (better**2 + worse**2)
        losses = losses + s.center_rewards_coefficient * centring_loss(better, worse)
        right = (better > worse).float() + 0.5 * (better == worse)  # as `correct` has it
        return (weights * losses).sum(), {"accuracy": (weights * right).sum()}

    def row_scores(self, model: Any, indices: np.ndarray) -> Tensor:
        """Raw scores of all responses of these examples, each once, in order; `[rows]`."""
        groups = [self.comparisons[max(i, 0)].rows for i in indices]
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
