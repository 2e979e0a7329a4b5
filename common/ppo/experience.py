"""From a rollout to what PPO trains on: log-probabilities, values, rewards, advantages."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from common.hybrid_engine.rollout import Rollout
from common.models.policy import score_responses
from common.ppo.advantages import generalized_advantages, normalize_advantages
from common.ppo.arguments import PPOArguments
from common.ppo.kl import kl_k1
from common.ppo.rewards import (
    clipped_scores,
    score_penalties,
    token_rewards,
    weighted_scores,
)
from common.ppo.running import Scale
from common.training.padding import in_batches
from common.training.watchdog import WATCHDOG


@dataclass
class FirstForward:
    """The forward that scored the rows which are trained on first; an update goes back through it.

    Between scoring and the first update no weight changes: a second forward would be the same.
    """

    logprobs: Tensor | None
    """`[rows, width]`, of the actor, with its graph; None where the actor is not trained."""
    values: Tensor
    """`[rows, width]`, of the critic, with its graph."""
    entropy: Tensor | None = None
    """`[rows, width]`, of the actor, with its graph; None where no objective asks for it."""


@dataclass
class Experience:
    """One rollout of this rank, ready for training. P is the prompts' width, R the responses'."""

    input_ids: Tensor
    """`[batch, P + R]`."""
    attention_mask: Tensor
    """`[batch, P + R]` bool."""
    mask: Tensor
    """`[batch, R]` bool: the actions."""
    logprobs: Tensor
    """`[batch, R]`: of the policy that sampled, by the training forward."""
    ref_logprobs: Tensor
    """`[batch, R]`."""
    entropy: Tensor
    """`[batch, R]`, nats."""
    values: Tensor
    """`[batch, R]`."""
    rewards: Tensor
    """`[batch, R]`."""
    advantages: Tensor
    """`[batch, R]`, normalized if asked for."""
    returns: Tensor
    """`[batch, R]`."""
    raw_scores: dict[str, Tensor]
    """`[batch]`, of each source of rewards by its name."""
    scores: Tensor
    """`[batch]`, normalized, weighted and clipped (`no_end_score` where the end token is missing),
    less the penalties."""
    penalties: Tensor
    """`[batch]`, for length and repeats."""
    first: FirstForward | None = None

    def rows(self, indices: Tensor) -> "Experience":
        """These rows, without the columns that are padding in all of them."""
        width = self.mask.shape[1]
        columns, response = used_columns(self.attention_mask[indices], width)
        part: dict[str, Any] = {"raw_scores": {k: x[indices] for k, x in self.raw_scores.items()}}
        for name in (f.name for f in fields(self) if f.name not in ("first", "raw_scores")):
            value = getattr(self, name)[indices]
            if name in ("input_ids", "attention_mask"):
                value = value[:, columns]
            elif value.dim() == 2:
                value = value[:, :response]
            part[name] = value
        return Experience(**part)

    def __len__(self) -> int:
        return len(self.input_ids)


def used_columns(attention_mask: Tensor, response_width: int) -> tuple[slice, int]:
    """The columns that are not padding in all rows, and how many of them are responses'.

    Args:
        attention_mask: `[rows, P + R]`, prompts left-padded, responses right-padded.
        response_width: R.
    """
    prompt_width = attention_mask.shape[1] - response_width
    prompt = int(attention_mask[:, :prompt_width].sum(dim=1).max())
    response = max(int(attention_mask[:, prompt_width:].sum(dim=1).max()), 1)
    return slice(prompt_width - prompt, prompt_width + response), response


def response_values(
    critic: nn.Module, input_ids: Tensor, attention_mask: Tensor, response_width: int
) -> Tensor:
    """V of each state (prompt, response[:t]): the critic's output *before* response token t.

    Args:
        input_ids, attention_mask: `[batch, P + R]`.

    Returns:
        `[batch, R]` float32: columns P−1 … P+R−2.
    """
    return critic(input_ids, attention_mask)[:, -response_width - 1 : -1]


@torch.no_grad()
def make_experience(
    rollout: Rollout,
    rewards: Mapping[str, Tensor | Callable[[Tensor, Tensor], Tensor]],
    actor: nn.Module,
    reference: nn.Module,
    critic: nn.Module,
    settings: PPOArguments,
    *,
    kl_coefficient: float,
    temperature: float,
    scales: Mapping[str, Scale],
    first: Tensor | None = None,
    train_actor: bool = True,
) -> Experience:
    """Scores a rollout with actor, reference and critic, and works out rewards and advantages.

    A collective where advantages are normalized, or weights are sharded: every rank calls it with
    equally many rows.

    Args:
        rewards: of each source its raw scores, `[batch]`; or a reward model itself, as a function
            of ids and mask, `[rows, width]` each, which then reads the batches that the others
            read.
        kl_coefficient: β of this rollout.
        temperature: at which the rollout was sampled.
        first: rows that are trained on first, `[rows]` int64; the graph of their forward is kept
            (see `FirstForward`). `train_actor` says whether the actor's is, too.
        scales: how each source's scores are normalized and weighted.
    """
    mask = rollout.response_mask
    logprobs, ref_logprobs, spread, values = (
        torch.zeros(mask.shape, device=mask.device) for _ in range(4)
    )
    raw_scores = {
        name: torch.zeros(len(mask), device=mask.device) if callable(reward) else reward
        for name, reward in rewards.items()
    }
    kept = None
    for rows, ids, attention, width in chunks(rollout, settings.score_batch_size, last=first):
        keeps = rows is first
        WATCHDOG.using("actor")
        with torch.set_grad_enabled(keeps and train_actor):
            wanted = "gradient" if settings.entropy_coefficient else "value"
            old = score_responses(actor, ids, attention, width, temperature, entropy=wanted)
        WATCHDOG.using("critic")
        with torch.set_grad_enabled(keeps):
            value = response_values(critic, ids, attention, width)
        if keeps:
            spread_kept = old.entropy if settings.entropy_coefficient else None
            kept = FirstForward(old.logprobs if train_actor else None, value, spread_kept)
        logprobs[rows, :width] = old.logprobs.detach()
        spread[rows, :width] = old.entropy.detach()
        values[rows, :width] = value.detach()
        WATCHDOG.using("reference")
        ref_logprobs[rows, :width] = score_responses(
            reference, ids, attention, width, temperature
        ).logprobs
        for name, reward in rewards.items():
            if callable(reward):
                WATCHDOG.using("reward model")
                raw_scores[name][rows] = reward(ids, attention)
    logprobs, ref_logprobs, spread, values = (
        x.masked_fill(~mask, 0.0) for x in (logprobs, ref_logprobs, spread, values)
    )
    means, stds = zip(
        *(scales[n].of_rollout(x[rollout.ended]) for n, x in raw_scores.items()), strict=True
    )
    scores = clipped_scores(
        weighted_scores(
            list(raw_scores.values()), means, stds, [scales[n].weight for n in raw_scores]
        ),
        settings.score_clip,
        rollout.ended,
        float(settings.no_end_score),
    )
    penalties = score_penalties(
        rollout.input_ids[:, -mask.shape[1] :],
        mask,
        settings.length_penalty,
        settings.repeat_penalty,
        settings.repeat_size,
    )
    scores = scores - penalties
    rewards = token_rewards(scores, kl_k1(logprobs, ref_logprobs), kl_coefficient, mask)
    advantages, returns = generalized_advantages(
        rewards, values, mask, settings.gamma, settings.lam
    )
    if settings.normalize_advantages:
        advantages = normalize_advantages(advantages, mask)
    return Experience(
        input_ids=rollout.input_ids,
        attention_mask=rollout.attention_mask,
        mask=mask,
        logprobs=logprobs,
        ref_logprobs=ref_logprobs,
        entropy=spread,
        values=values,
        rewards=rewards,
        advantages=advantages,
        returns=returns,
        raw_scores=raw_scores,
        scores=scores,
        penalties=penalties,
        first=kept,
    )


def chunks(
    rollout: Rollout, size: int, last: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor, Tensor, int]]:
    """(rows, ids, attention, response width), rows of like length together.

    Args:
        size: rows of a chunk, at most.
        last: rows that come in a chunk of their own behind the others.
    """
    lengths = rollout.attention_mask.sum(dim=1)
    order = lengths.argsort(stable=True)
    if last is not None:
        order = order[~torch.isin(order, last)]
    parts = [order[part] for part in in_batches(len(order), size)]
    for rows in parts if last is None else [*parts, last]:
        columns, width = used_columns(rollout.attention_mask[rows], rollout.response_width)
        yield rows, rollout.input_ids[rows, columns], rollout.attention_mask[rows, columns], width


def micro_batches(
    lengths: Tensor, order: Tensor, mini_batch: int, micro_batch: int
) -> list[list[Tensor]]:
    """Cuts this rank's rows into mini-batches of micro-batches, in the order given.

    Inside a mini-batch, rows of like length share a micro-batch; the gradient does not change.

    Args:
        lengths: `[batch]`.
        order: `[batch]`, a permutation of the rows.
        mini_batch, micro_batch: rows on this rank.

    Returns:
        for each mini-batch the rows of each micro-batch, `[micro_batch]` int64.
    """
    found = []
    for part in in_batches(len(order), mini_batch):
        rows = order[part]
        found.append(list(rows[lengths[rows].argsort(stable=True)].split(micro_batch)))
    return found
