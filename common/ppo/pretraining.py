"""PPO-ptx: language modelling on other data beside every update of the actor.

InstructGPT's objective (https://arxiv.org/abs/2203.02155, §3.5, equation 2) adds
γ·E_{x ~ D_pretrain}[log π(x)] to that of PPO, so that what PPO does not reward is not lost. Here
the expectation is a mean over the tokens of a batch; of conversations only the responses count, as
in stage 1.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from common.config.arguments import TextArguments, check_range, option
from common.data.blending import blend
from common.data.encoding import EncodedExample, encode_conversations
from common.data.layouts import read_conversations
from common.data.pii import scrub_conversations
from common.data.sources import parse_sources
from common.data.template import Template
from common.errors import UserError
from common.training.batching import FILLER, BatchShape, micro_batches, stream_indices
from common.training.distributed import rank, world_size
from common.training.seeding import derive_seed
from common.training.sft import SFTObjective


@dataclass
class PretrainingArguments:
    """Language modelling beside PPO (PPO-ptx)."""

    ptx_coefficient: float = option(
        0.0,
        "weight of the mean cross-entropy per token of ptx_data in each actor update; 0: none",
    )
    ptx_data: list[str] = option(
        [], "conversations for it, in all layouts of stage 1: files, hub names, or mappings"
    )
    ptx_batch_size: int = option(
        32, "examples of it per actor update, over all ranks, spread over its micro-batches"
    )
    ptx_scrub_pii: bool = option(
        True, "replace e-mail addresses, phone numbers and user names in ptx_data"
    )

    def __post_init__(self) -> None:
        check_range(self, 0, "ptx_coefficient")
        check_range(self, 1, "ptx_batch_size")
        if self.ptx_coefficient and not self.ptx_data:
            raise UserError(f"ptx_coefficient is {self.ptx_coefficient:g}, but ptx_data names none")
        if self.ptx_data and not self.ptx_coefficient:
            raise UserError("ptx_data is given, but ptx_coefficient is 0: it would not be used")


def read_pretraining(
    settings: PretrainingArguments, template: Template, text: TextArguments, seed: int
) -> tuple[list[EncodedExample], Counter]:
    """The data, scrubbed, blended and encoded as stage 1 does it; and what was left out.

    Raises:
        UserError: what `read_conversations` and `encode_conversations` raise.
    """
    if not settings.ptx_coefficient:
        return [], Counter()
    sources = parse_sources(settings.ptx_data)
    sets, _ = scrub_conversations(
        [read_conversations([s]) for s in sources], enabled=settings.ptx_scrub_pii
    )
    blended = blend(sets, [s.weight for s in sources], seed=seed)
    return encode_conversations(blended, template, text, "ptx example")


class PretrainingMix:
    """Which examples each update takes, and their loss."""

    def __init__(
        self, examples: list[EncodedExample], pad_id: int, settings: PretrainingArguments, seed: int
    ) -> None:
        self.objective = SFTObjective(examples, pad_id)
        self.coefficient = settings.ptx_coefficient
        self.batch_size = settings.ptx_batch_size
        self.seed = derive_seed(seed, "ptx")

    def shares(self, update: int, count: int) -> tuple[list[np.ndarray], float]:
        """This rank's examples of an update, which follow from its number alone.

        Args:
            update: counted from 0; each takes the next examples of an endless stream of
                permutations.
            count: of the update's micro-batches on each rank, which get a share each; where there
                are too few examples for that, shares are filled up.

        Returns:
            indices of each share, and the tokens of all shares of all ranks.
        """
        objective = self.objective
        indices = stream_indices(len(objective.lengths), self.batch_size, self.seed, update)
        tokens = sum(objective.weights[i] for i in indices)
        parts = count * world_size()
        indices = np.pad(indices, (0, -len(indices) % parts), constant_values=FILLER)
        shape = BatchShape(len(indices), len(indices) // parts, world_size())
        return list(micro_batches(indices, shape, rank(), objective.lengths)), tokens

    def beside(
        self,
        losses: Sequence[Callable[[], Tensor]],
        actor: Any,
        count: float,
        update: int,
        sums: dict[str, Any],
    ) -> list[Callable[[], Tensor]]:
        """The losses of an update's micro-batches, each with γ times that of its share.

        DeepSpeed counts backward passes, so the two losses of a micro-batch share one.

        Args:
            losses: each a sum over actions, which the optimizer step divides by `count`; this
                term is divided by its own tokens instead.
            update: see `shares`.
            sums: takes "ptx_loss", in nats, and "ptx_tokens", this rank's part of either.
        """
        shares, tokens = self.shares(update, len(losses))
        sums["ptx_tokens"] = sums.get("ptx_tokens", 0.0) + tokens / world_size()
        factor = self.coefficient * max(count, 1.0) / max(tokens, 1.0)

        def both(loss: Callable[[], Tensor], share: np.ndarray) -> Tensor:
            policy, (own, _) = loss(), self.objective.loss(actor, share)
            sums["ptx_loss"] = sums.get("ptx_loss", 0.0) + own.detach()
            return policy + factor * own

        return [lambda x=x, r=r: both(x, r) for x, r in zip(losses, shares, strict=True)]
