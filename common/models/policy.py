"""A language model that answers with its tokens' log-probabilities, not with logits.

The logits of a whole batch, `[batch, width, vocabulary]`, are the largest tensor of a training
step, and most of them are of no use: prompts and padding are not learned from. Here only the
tokens asked for are projected onto the vocabulary, a piece at a time.
"""

import contextlib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from common.models.logprobs import logprobs_and_entropy, position_ids, token_logprobs
from common.training.packing import arrange
from common.training.sequence import own_slice

MOST_LOGITS = 2**24
"""Logits that exist at a time (64 MB in fp32), by default. Where more are needed, each piece's are
worked out again in the backward pass."""


class TokenScores(NamedTuple):
    """Of the tokens asked for, row by row."""

    logprobs: Tensor
    """`[tokens]` float32, nats, at the sampling temperature."""
    entropy: Tensor
    """`[tokens]` float32, nats: of the distribution each token was drawn from; 0 unless asked."""


Entropy = Literal["no", "value", "gradient"]
"""Whether the entropy is wanted; its gradient keeps another tensor of the logits' size."""


class ScoringHead(nn.Linear):
    """A language model's head that can also score tokens, all in one call.

    One call, because under ZeRO-3 each call of a module gathers its weights on all ranks: pieces
    are cut inside, where ranks may differ in their number.
    """

    most_logits = MOST_LOGITS

    def forward(
        self,
        hidden: Tensor,
        targets: Tensor | None = None,
        temperature: float = 1.0,
        entropy: Entropy = "no",
    ) -> Any:
        """Logits, as before; or, with targets, `TokenScores` of them.

        Args:
            hidden: `[tokens, width]`.
            targets: `[tokens]` int64: the tokens that follow.
        """
        if targets is None:
            return super().forward(hidden)
        size = max(1, self.most_logits // self.weight.shape[0])
        if len(targets) <= size:
            return TokenScores(*self._scores(hidden, targets, temperature, entropy))
        pieces = [
            checkpoint(self._scores, part, wanted, temperature, entropy, use_reentrant=False)
            for part, wanted in zip(hidden.split(size), targets.split(size), strict=True)
        ]
        return TokenScores(*(torch.cat(parts) for parts in zip(*pieces, strict=True)))

    def _scores(
        self, hidden: Tensor, targets: Tensor, temperature: float, entropy: Entropy
    ) -> tuple[Tensor, Tensor]:
        return logit_scores(super().forward(hidden), targets, temperature, entropy)


class PolicyModel(nn.Module):
    """A causal language model, perhaps with adapters, for training and scoring."""

    shares_weights = False
    """Whether other models work on the same weights (`common.models.roles`)."""

    def __init__(self, model: Any, most_logits: int | None = None, sequence_ranks: int = 1) -> None:
        """Args:
        model: a Hugging Face causal language model, or PEFT's wrapper around one.
        most_logits: see `MOST_LOGITS`; None leaves a head's as it is: the model may be another
            one's that trains.
        sequence_ranks: how many ranks share each row (`common.training.sequence`); each then
            answers for the tokens wanted in its own slice.
        """
        super().__init__()
        self.model = model
        self.sequence_ranks = sequence_ranks
        head = self.inner.get_output_embeddings()
        if type(head) is nn.Linear and head_gives_the_logits(self.inner, head):
            head.__class__ = ScoringHead
        self.scores_in_head = isinstance(head, ScoringHead)
        if self.scores_in_head and most_logits is not None:
            head.most_logits = most_logits

    @property
    def inner(self) -> Any:
        """The language model without PEFT's wrapper."""
        return self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model

    @property
    def config(self) -> Any:
        """The language model's config."""
        return self.inner.config

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        wanted: Tensor,
        positions: Tensor | None = None,
        temperature: float = 1.0,
        entropy: Entropy = "no",
    ) -> TokenScores:
        """Log-probabilities of some tokens, each given those before it.

        Args:
            input_ids: `[batch, width]`.
            attention_mask: `[batch, width]`, padding on either side; or, for packed rows,
                `[batch, 1, width, width]`.
            wanted: `[batch, width]` bool: the tokens asked for; a row's first, which nothing
                predicts, is left out.
            positions: `[batch, width]`, of packed rows.
        """
        if positions is None:
            if self.sequence_ranks > 1:
                inputs, places = own_slice(input_ids, attention_mask, self.sequence_ranks)
            else:
                inputs, places = arrange(self.inner, input_ids, attention_mask)
            positions = position_ids(attention_mask.bool())
        else:
            inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
            inputs["position_ids"] = positions
            places = torch.arange(wanted.numel(), device=wanted.device).view_as(wanted)
        wanted = wanted & (positions > 0)
        before, targets = places[wanted] - 1, input_ids[wanted]
        if self.sequence_ranks > 1:  # the token before may be another rank's, which answers then
            before = places.roll(1, dims=1)[wanted]
            before, targets = before[before >= 0], targets[before >= 0]
        if self.scores_in_head:
            hidden = self.inner.base_model(**inputs, use_cache=False).last_hidden_state
            head = self.inner.get_output_embeddings()
            return head(hidden.flatten(0, 1)[before], targets, temperature, entropy)
        logits = self.inner(**inputs, use_cache=False).logits.flatten(0, 1)[before]
        return TokenScores(*logit_scores(logits, targets, temperature, entropy))

    def acting(self) -> AbstractContextManager[None]:
        """Inside, a bare call of the language model is one of this policy.

        It always is, but for a policy that shares its weights (`common.models.roles`).
        """
        return contextlib.nullcontext()

    def save_pretrained(self, folder: Path) -> None:
        """Writes the language model's folder, or its adapters'."""
        if hasattr(self.model, "peft_config"):  # embeddings: not even looked at
            self.model.save_pretrained(folder, save_embedding_layers=False)
        else:
            self.model.save_pretrained(folder)


@torch.no_grad()
def head_gives_the_logits(model: Any, head: nn.Linear) -> bool:
    """Whether the head on the backbone's last hidden states is all there is to the logits.

    Tried out on a few tokens, because models differ without saying so in any one place: factors
    (Cohere, Granite), layers between backbone and head (BERT), soft caps (Gemma 2). What the head
    gives is replaced by large numbers on the way, as a cap leaves small ones alone.
    """
    inputs: list[Tensor] = []
    planted: list[Tensor] = []

    def plant(_: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        inputs.extend(given)  # none where it is called by keyword: then it goes the long way
        planted.append(torch.linspace(-300, 300, output.numel()).to(output).view_as(output))
        return planted[0]

    was_training = model.training
    model.eval()
    try:
        ids = torch.arange(4, device=head.weight.device).unsqueeze(0) % head.out_features
        hidden = getattr(
            model.base_model(input_ids=ids, use_cache=False), "last_hidden_state", None
        )
        hook = head.register_forward_hook(plant)
        try:
            logits = model(input_ids=ids, use_cache=False).logits
        finally:
            hook.remove()
    finally:
        model.train(was_training)
    return (
        hidden is not None
        and len(inputs) == 1
        and (inputs[0].shape, inputs[0].dtype) == (hidden.shape, hidden.dtype)
        and torch.allclose(inputs[0], hidden, rtol=1e-4, atol=1e-4)
        and torch.equal(logits.float(), planted[0].float())
    )


def language_model(module: Any) -> Any:
    """The Hugging Face model in an engine, a `PolicyModel`, or as it is."""
    module = getattr(module, "module", module)
    return module.model if isinstance(module, PolicyModel) else module


def acting(module: Any) -> AbstractContextManager[None]:
    """`PolicyModel.acting` of what an engine holds; nothing for a plain model."""
    module = getattr(module, "module", module)
    return module.acting() if isinstance(module, PolicyModel) else contextlib.nullcontext()


def shares_weights(module: Any) -> bool:
    """`PolicyModel.shares_weights` of what an engine holds; False for a plain model."""
    return getattr(getattr(module, "module", module), "shares_weights", False)


def logit_scores(
    logits: Tensor, targets: Tensor, temperature: float, entropy: Entropy
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies, `[tokens]` float32 each (see `TokenScores`).

    Args:
        logits: `[tokens, vocabulary]`.
    """
    if entropy != "no":
        gradient = entropy == "gradient"
        return logprobs_and_entropy(logits, targets, temperature, gradient=gradient)
    logprobs = token_logprobs(logits, targets, temperature)
    return logprobs, torch.zeros_like(logprobs)


def score_responses(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    response_width: int,
    temperature: float = 1.0,
    *,
    entropy: Entropy = "no",
) -> TokenScores:
    """Runs the model over prompt + response and reads each response token's log-probability.

    log π_t is read at the token *before* response token t: with inputs of width P + R, columns
    P−1 … P+R−2 of the outputs.

    Args:
        model: a `PolicyModel`, an engine around one, or a plain language model.
        input_ids, attention_mask: `[batch, P + R]`, prompts left-padded, responses right-padded.
        response_width: R.

    Returns:
        log-probabilities and entropies, `[batch, R]`; 0 where the mask has padding.
    """
    if not isinstance(getattr(model, "module", model), PolicyModel):
        model = PolicyModel(model)
    wanted = attention_mask.bool().clone()
    wanted[:, : wanted.shape[1] - response_width] = False
    found = model(input_ids, attention_mask, wanted, temperature=temperature, entropy=entropy)
    places = wanted[:, -response_width:]
    shape = places.shape
    return TokenScores(
        *(x.new_zeros(shape).masked_scatter(places, x) for x in (found.logprobs, found.entropy))
    )
