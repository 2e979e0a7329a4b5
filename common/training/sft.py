"""The loss of stage 1: next-token cross-entropy on responses and their end tokens (§3.1)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.data.encoding import EncodedExample
from common.training.batching import FILLER
from common.training.distributed import device
from common.training.packing import pack
from common.training.padding import right_pad


class SFTObjective:
    """Encoded examples with their loss (see `common.training.supervised.Objective`)."""

    def __init__(
        self, examples: Sequence[EncodedExample], pad_id: int, pack_tokens: int = 0
    ) -> None:
        """Args:
        pack_tokens: tokens of a row that takes several examples; 0 gives each a row of its own.
        """
        self.examples = examples
        self.pad_id = pad_id
        self.pack_tokens = pack_tokens
        self.lengths = [len(e.input_ids) for e in examples]
        self.weights = [float(sum(e.loss_mask)) for e in examples]

    def loss(self, model: Any, indices: np.ndarray) -> tuple[Tensor, dict[str, Tensor]]:
        """Summed negative log-likelihood of the responses of these examples.

        Args:
            model: a `PolicyModel`, or an engine around one.
        """
        rows = [self.examples[max(i, 0)] for i in indices]
        masks = [
            r.loss_mask if i != FILLER else [False] * len(r.loss_mask)
            for i, r in zip(indices, rows, strict=True)
        ]
        form = self._packed if self.pack_tokens else self._padded
        return form(model, [r.input_ids for r in rows], masks), {}

    def _padded(self, model: Any, rows: list[list[int]], masks: list[list[bool]]) -> Tensor:
        ids, attention = right_pad(rows, self.pad_id)
        learned, _ = right_pad(masks, False)
        ids, attention, learned = (x.to(device()) for x in (ids, attention, learned.bool()))
        return -model(ids, attention, learned).logprobs.sum()

    def _packed(self, model: Any, rows: list[list[int]], masks: list[list[bool]]) -> Tensor:
        packed = pack([[row] for row in rows], self.pad_id, self.pack_tokens)
        learned = torch.zeros(packed.input_ids.numel(), dtype=torch.bool)
        for (end,), mask in zip(packed.ends, masks, strict=True):
            # A first token has nothing to predict it: before it stands another example.
            learned[end - len(mask) + 2 : end + 1] = torch.tensor(mask[1:])
        learned = learned.view_as(packed.input_ids).to(device())
        scores = model(packed.input_ids, packed.attention_mask, learned, packed.position_ids)
        return -scores.logprobs.sum()

    def origin(self, index: int) -> str:
        """File and line of an example."""
        return self.examples[index].origin


def perplexity(nll: float, tokens: float) -> float:
    """exp of the mean negative log-likelihood; infinite where that overflows."""
    return float(torch.tensor(nll / max(tokens, 1.0), dtype=torch.float64).exp())
