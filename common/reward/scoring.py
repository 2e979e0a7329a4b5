"""Scores of whole responses by a trained reward model, for rollouts and for evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from common.config.arguments import TextArguments
from common.data.records import Message
from common.data.template import Template
from common.errors import UserError
from common.hybrid_engine.rollout import Rollout
from common.models.context import learned_positions
from common.models.scalar import last_token_scores
from common.training.distributed import device, fail_together
from common.training.padding import in_batches, right_pad


class RewardScorer:
    """A frozen reward model with its tokenizer and its normalization."""

    def __init__(
        self,
        model: nn.Module,
        template: Template,
        policy: Template,
        mean: float | None,
        std: float | None,
    ) -> None:
        """Args:
        model: `ScalarModel` or a frozen engine around one.
        template: of the reward model's own tokenizer.
        policy: of the actor's tokenizer.
        mean, std: of raw scores over reference responses; None where nobody knows.
        """
        self.model = model
        self.template = template
        self.policy = policy
        self.mean = mean
        self.std = std
        self.longest = learned_positions(model)
        self.pad_id = template.tokenizer.pad_token_id
        self.same_tokens = (
            template.end_id == policy.end_id
            and template.form == policy.form
            and reads_tokens_of(template.tokenizer, policy.tokenizer)
        )

    @property
    def scale(self) -> tuple[float, float] | None:
        """Mean and deviation of raw scores over reference responses, where both are known."""
        return None if self.mean is None or self.std is None else (self.mean, self.std)

    def check_limits(self, text: TextArguments, name: str) -> None:
        """Raises UserError where a rollout's rows may be too long for its table of positions."""
        longest = text.max_prompt_tokens + text.max_response_tokens
        if self.same_tokens and self.longest is not None and longest > self.longest:
            raise UserError(
                f"{name} sees {self.longest} tokens, but rows may have {longest}: lower "
                "max_prompt_tokens or max_response_tokens"
            )

    @torch.no_grad()
    def score_rollout(
        self, rollout: Rollout, prompts: Sequence[Sequence[Message]], batch_size: int
    ) -> Tensor:
        """Raw scores, `[batch]` float32, on this rank's device.

        A rollout's ids are scored as they are; only for a reward model with another tokenizer
        are they decoded and tokenized again.
        """
        return self.score_ids(*self.read(rollout, prompts), batch_size)

    def read(self, rollout: Rollout, prompts: Sequence[Sequence[Message]]) -> tuple[Tensor, Tensor]:
        """A rollout as the reward model reads it: ids and mask, `[batch, width]`. A collective.

        Raises:
            UserError: on all ranks: some text is longer than the model's table of positions.
        """
        if self.same_tokens:
            return rollout.input_ids, rollout.attention_mask
        texts = [self.policy.decode_response(r) for r in rollout.response_ids()]
        ids, mask = self.encode(prompts, texts)
        fault = ""
        if self.longest is not None and ids.shape[1] > self.longest:
            fault = (
                f"a prompt with its response is {ids.shape[1]} tokens long to the reward model, "
                f"which sees {self.longest}: lower max_prompt_tokens or max_response_tokens"
            )
        fail_together(fault)
        return ids, mask

    @torch.no_grad()
    def score_texts(
        self, prompts: Sequence[Sequence[Message]], responses: Sequence[str], batch_size: int
    ) -> Tensor:
        """Raw scores of texts, each taken as a finished response; `[batch]` float32."""
        return self.score_ids(*self.encode(prompts, responses), batch_size)

    def encode(
        self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """Texts in the reward model's own tokens: ids and mask, `[batch, width]`."""
        rows = [
            self.template.encode_prompt(p) + self.template.encode_response(r)
            for p, r in zip(prompts, responses, strict=True)
        ]
        ids, mask = right_pad(rows, self.pad_id)
        return ids.to(device()), mask.to(device())

    @torch.no_grad()
    def score_ids(self, input_ids: Tensor, attention_mask: Tensor, batch_size: int) -> Tensor:
        """Raw scores of token ids, `[batch]` float32; rows of like length share a forward.

        Args:
            input_ids, attention_mask: `[batch, width]`, padding on either side or both.
        """
        scores = torch.empty(len(input_ids), device=input_ids.device)
        order = attention_mask.sum(dim=1).argsort()
        for part in in_batches(len(order), batch_size):
            rows = order[part]
            mask = attention_mask[rows]
            used = mask.any(dim=0)
            ids, mask = input_ids[rows][:, used], mask[:, used]
            scores[rows] = self.score_batch(ids, mask)
        return scores

    @torch.no_grad()
    def score_batch(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Raw scores of one forward, `[batch]` float32; arguments as of `score_ids`."""
        return last_token_scores(self.model(input_ids, attention_mask), attention_mask)


def reads_tokens_of(reader: Any, writer: Any) -> bool:
    """Whether every token id of `writer` is the same token to `reader`, end token included.

    A reward model's tokenizer often has one token more than the actor's: a pad token of its own.
    """
    known = reader.get_vocab()
    return reader.eos_token_id == writer.eos_token_id and all(
        known.get(token) == number for token, number in writer.get_vocab().items()
    )


def score_scale(config: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Mean and deviation that `set_normalization` noted in a config; None in other models'."""
    if config.get("score_mean") is None:
        return None, None
    return config["score_mean"], config.get("score_std", 1.0)


def set_normalization(engine: Any, spread: dict[str, float]) -> None:
    """Writes the scores' mean and deviation over reference responses into the model's config."""
    config = engine.module.inner.config
    config.score_mean = spread["mean"]
    config.score_std = max(spread["std"], 1e-6)
