"""Comparisons with DPO's loss, and the reference's log-probabilities of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.config.arguments import check_range, option
from common.data.encoding import Comparison
from common.dpo.losses import dpo_loss, implicit_rewards
from common.errors import UserError
from common.training.distributed import any_rank, device
from common.training.padding import right_pad
from common.training.preferences import pair_rows
from common.training.supervised import score_examples


@dataclass
class DPOArguments:
    """DPO's objective."""

    dpo_beta: float = option(
        0.1,
        "how strongly the policy is held to the reference, in rewards per nat of a whole response; "
        "low values let it go further",
    )
    label_smoothing: float = option(
        0.0, "share of the labels taken to be wrong (conservative DPO); 0 is plain DPO"
    )
    length_normalized: bool = option(
        False, "divide log-ratios by the response's tokens; dpo_beta is then per nat a token"
    )

    def __post_init__(self) -> None:
        check_range(self, 0, "dpo_beta", above=True)
        if not 0 <= self.label_smoothing < 0.5:
            raise UserError(
                f"label_smoothing is {self.label_smoothing}, but must lie in [0, 0.5): at a half "
                "the labels say nothing"
            )


class DPOObjective:
    """Comparisons with their loss (see `common.training.supervised.Objective`).

    All pairs of a prompt are one example, as in reward training: their responses go through the
    model together, each once. The mean is over pairs, by their weights.
    """

    def __init__(
        self, comparisons: Sequence[Comparison], pad_id: int, settings: DPOArguments
    ) -> None:
        self.comparisons = comparisons
        self.pad_id = pad_id
        self.settings = settings
        self.lengths = [max(map(len, c.rows)) for c in comparisons]
        self.weights = [sum(p.weight for p in c.records) for c in comparisons]
        self.reference: list[list[float]] = []
        """log π_ref of each comparison's responses, nats; empty before `score_reference`."""

    def score_reference(self, engine: Any, batch_size: int) -> None:
        """Notes the engine's log-probabilities as the reference's. A collective.

        To be called before the first step, and before a checkpoint is loaded: then the policy is
        the reference (new adapters add nothing yet), and no second model is needed, neither now
        nor later.

        Args:
            batch_size: prompts per forward on each rank.
        """
        sizes = [len(c.rows) for c in self.comparisons]
        self.reference = score_examples(
            engine, self.lengths, sizes, batch_size, lambda i: self.logprobs(engine, i).tolist()
        )

    def loss(self, model: Any, indices: np.ndarray) -> tuple[Tensor, dict[str, Tensor]]:
        """Summed weighted loss of the pairs of these examples; and as summed over the pairs

        - `accuracy`: the chosen response has the higher implicit reward (half where equal);
        - `margin`, `chosen_reward`, `rejected_reward`: implicit rewards;
        - `drift`: log π_ref − log π of the two responses' mean, in nats a response. Where the
          responses are the reference's own samples, it estimates KL(π_ref ‖ π).

        Args:
            model: a `PolicyModel`, or an engine around one.
        """
        chosen = [self.comparisons[max(i, 0)] for i in indices]
        better, worse, weights = pair_rows(chosen, indices)
        logprobs = self.logprobs(model, indices)
        reference = torch.tensor(
            [x for i in indices for x in self.reference[max(i, 0)]], device=logprobs.device
        )
        lengths = None
        if self.settings.length_normalized:
            tokens = [len(row) - c.prompt_tokens for c in chosen for row in c.rows]
            lengths = torch.tensor(tokens, device=logprobs.device)
        rewards = implicit_rewards(logprobs, reference, self.settings.dpo_beta, lengths)
        losses = dpo_loss(rewards[better], rewards[worse], self.settings.label_smoothing)
        margins, drift = rewards[better] - rewards[worse], reference - logprobs
        statistics = {
            "accuracy": (margins > 0).float() + 0.5 * (margins == 0),
            "margin": margins,
            "chosen_reward": rewards[better],
            "rejected_reward": rewards[worse],
            "drift": 0.5 * (drift[better] + drift[worse]),
        }
        return (weights * losses).sum(), {
            name: (weights * value.detach()).sum() for name, value in statistics.items()
        }

    def logprobs(self, model: Any, indices: np.ndarray) -> Tensor:
        """log π(y|x) of all responses of these examples, with their end tokens; `[rows]` float32.

        Args:
            model: a `PolicyModel`, or an engine around one.
        """
        chosen = [self.comparisons[max(i, 0)] for i in indices]
        rows = [row for c in chosen for row in c.rows]
        prompts = torch.tensor([c.prompt_tokens for c in chosen for _ in c.rows])
        ids, attention = right_pad(rows, self.pad_id)
        # Nothing stands before a row's first token to predict it.
        is_response = torch.arange(ids.shape[1]) >= prompts.clamp(min=1).unsqueeze(1)
        wanted = is_response & attention.bool()
        ids, attention, wanted = (x.to(device()) for x in (ids, attention, wanted))
        found = model(ids, attention, wanted).logprobs
        # Summed row by row, always in one order: an added-up index would have none on a card.
        return found.new_zeros(wanted.shape).masked_scatter(wanted, found).sum(dim=1)

    def origin(self, index: int) -> str:
        """File and line of an example's first pair."""
        return self.comparisons[index].records[0].origin


@torch.no_grad()
def check_start(engine: Any, objective: DPOObjective, batch_size: int, limit: float) -> None:
    """Before the first step the policy that trains is the reference: its loss is ln 2 a pair.

    The log-probabilities themselves are compared, of which that follows: in the loss, gaps of
    either sign would nearly cancel. They are taken in training mode and in other batches than the
    reference's were, so that dropout or padding that leaks in would show. A collective.

    Args:
        batch_size: prompts per forward on each rank.
        limit: on the gap of a response, in nats a token.

    Raises:
        UserError: it is not.
    """
    indices = np.arange(len(objective.comparisons))[:batch_size]
    chosen = [objective.comparisons[i] for i in indices]
    tokens = [len(row) - c.prompt_tokens for c in chosen for row in c.rows]
    found = objective.logprobs(engine, indices).tolist()
    before = [x for i in indices for x in objective.reference[i]]
    gaps = [abs(a - b) / n for a, b, n in zip(found, before, tokens, strict=True)]
    if any_rank(not all(gap <= limit for gap in gaps)):
        raise UserError(
            f"before any update a response's log-probability is {max(gaps):.4g} nats a token away "
            f"from the reference's (limit {limit:g}), and the loss not ln 2: dropout is on, or "
            "padding leaks into the forward"
        )
