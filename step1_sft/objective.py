"""The loss of stage 1: next-token cross-entropy on responses and their end tokens (§3.1)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.data.encoding import EncodedExample
from common.hybrid_engine.generation import right_pad
from common.models.logprobs import position_ids, token_logprobs
from common.training.batching import FILLER
from common.training.distributed import device
from common.training.packing import pack


def response_nll(logits: Tensor, input_ids: Tensor, loss_mask: Tensor) -> Tensor:
    """−Σ log p(token | what stands before it) over the marked tokens.

    Args:
        logits: `[batch, width, vocabulary]`.
        input_ids: `[batch, width]`.
        loss_mask: `[batch, width]` bool; the first column cannot be predicted and must be False.

    Returns:
        scalar float32, nats, summed.
    """
    logprobs = token_logprobs(logits[:, :-1], input_ids[:, 1:])
    return -logprobs.masked_fill(~loss_mask[:, 1:], 0.0).sum()


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
        """Summed negative log-likelihood of the responses of these examples."""
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
        # Most of a row is prompt, and nothing is learned there: the logits begin one column
        # before the first learned one, which they predict.
        first = min((m.index(True) for m in masks if True in m), default=ids.shape[1] - 1)
        kept = slice(first - 1, None)
        ids, attention, learned = (x.to(device()) for x in (ids, attention, learned.bool()))
        logits = model(
            input_ids=ids,
            attention_mask=attention,
            position_ids=position_ids(attention),
            logits_to_keep=ids.shape[1] - first + 1,
            use_cache=False,
        ).logits
        return response_nll(logits, ids[:, kept], learned[:, kept])

    def _packed(self, model: Any, rows: list[list[int]], masks: list[list[bool]]) -> Tensor:
        packed = pack([[row] for row in rows], self.pad_id, self.pack_tokens)
        learned = torch.zeros(packed.input_ids.numel(), dtype=torch.bool)
        for (end,), mask in zip(packed.ends, masks, strict=True):
            # A first token has nothing to predict it: before it stands another example.
            learned[end - len(mask) + 2 : end + 1] = torch.tensor(mask[1:])
        logits = model(
            input_ids=packed.input_ids,
            attention_mask=packed.attention_mask,
            position_ids=packed.position_ids,
            use_cache=False,
        ).logits
        learned = learned.view_as(packed.input_ids).to(device())
        return response_nll(logits, packed.input_ids, learned)

    def origin(self, index: int) -> str:
        """File and line of an example."""
        return self.examples[index].origin


def perplexity(nll: float, tokens: float) -> float:
    """exp of the mean negative log-likelihood; infinite where that overflows."""
    return float(torch.tensor(nll / max(tokens, 1.0), dtype=torch.float64).exp())
