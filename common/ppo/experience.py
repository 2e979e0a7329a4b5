"""From a rollout to what PPO trains on: log-probabilities, values, rewards, advantages."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from common.hybrid_engine.rollout import Rollout
from common.models.policy import score_responses
from common.ppo.advantages import generalized_advantages, normalize_advantages
from common.ppo.arguments import PPOArguments
from common.ppo.kl import kl_k1
from common.ppo.rewards import normalized_scores, token_rewards
from common.training.padding import in_batches


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
    raw_scores: Tensor
    """`[batch]`, of the reward model."""
    scores: Tensor
    """`[batch]`, normalized and clipped; `no_end_score` where the end token is missing."""

    def rows(self, indices: Tensor) -> "Experience":
        """These rows, without the columns that are padding in all of them."""
        part = {f.name: getattr(self, f.name)[indices] for f in fields(self)}
        prompt_width = self.input_ids.shape[1] - self.mask.shape[1]
        prompt = int(part["attention_mask"][:, :prompt_width].sum(dim=1).max())
        response = max(int(part["mask"].sum(dim=1).max()), 1)
        for name, value in part.items():
            if value.dim() == 2 and value.shape[1] == self.mask.shape[1]:
                part[name] = value[:, :response]
        for name in ("input_ids", "attention_mask"):
            whole = getattr(self, name)[indices]
            part[name] = whole[:, prompt_width - prompt : prompt_width + response]
        return Experience(**part)

    def __len__(self) -> int:
        return len(self.input_ids)


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
    reward: Tensor | Callable[[Tensor, Tensor], Tensor],
    actor: nn.Module,
    reference: nn.Module,
    critic: nn.Module,
    settings: PPOArguments,
    *,
    kl_coefficient: float,
    temperature: float,
    score_mean: float,
    score_std: float,
) -> Experience:
    """Scores a rollout with actor, reference and critic, and works out rewards and advantages.

    A collective where advantages are normalized, or weights are sharded: every rank calls it with
    equally many rows.

    Args:
        reward: raw scores of the reward model, `[batch]`; or the model itself, as a function of
            ids and mask, `[rows, width]` each, which then reads the batches that the others read.
        kl_coefficient: β of this rollout.
        temperature: at which the rollout was sampled.
    """
    mask = rollout.response_mask
    logprobs, ref_logprobs, spread, values = (
        torch.zeros(mask.shape, device=mask.device) for _ in range(4)
    )
    raw_scores = torch.zeros(len(mask), device=mask.device) if callable(reward) else reward
    for rows, ids, attention, width in chunks(rollout, settings.score_batch_size):
        old = score_responses(actor, ids, attention, width, temperature, with_entropy=True)
        logprobs[rows, :width] = old.logprobs
        spread[rows, :width] = old.entropy
        ref_logprobs[rows, :width] = score_responses(
            reference, ids, attention, width, temperature
        ).logprobs
        values[rows, :width] = response_values(critic, ids, attention, width)
        if callable(reward):
            raw_scores[rows] = reward(ids, attention)
    logprobs, ref_logprobs, spread, values = (
        x.masked_fill(~mask, 0.0) for x in (logprobs, ref_logprobs, spread, values)
    )
    scores = normalized_scores(
        raw_scores,
        score_mean,
        score_std,
        settings.score_clip,
        rollout.ended,
        float(settings.no_end_score),
    )
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
    )


def chunks(rollout: Rollout, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor, int]]:
    """(rows, ids, attention, response width), rows of like length together."""
    lengths = rollout.attention_mask.sum(dim=1)
    order = lengths.argsort(stable=True)
    prompts = lengths - rollout.response_mask.sum(dim=1)
    prompt_width = rollout.input_ids.shape[1] - rollout.response_width
    for part in in_batches(len(order), size):
        rows = order[part]
        width = max(int(rollout.response_mask[rows].sum(dim=1).max()), 1)
        first = prompt_width - int(prompts[rows].max())
        columns = slice(first, prompt_width + width)
        yield rows, rollout.input_ids[rows, columns], rollout.attention_mask[rows, columns], width


def mini_batches(
    experience: Experience, mini_batch: int, micro_batch: int, order: Tensor
) -> Iterator[list[Experience]]:
    """Cuts a rollout into mini-batches of micro-batches, in the order given.

    Inside a mini-batch, rows of like length share a micro-batch; the gradient does not change.

    Args:
        mini_batch, micro_batch: rows on this rank.
        order: `[batch]`, a permutation of this rank's rows.
    """
    lengths = experience.attention_mask.sum(dim=1)
    for start in range(0, len(order), mini_batch):
        rows = order[start : start + mini_batch]
        rows = rows[lengths[rows].argsort(stable=True)]
        yield [experience.rows(rows[i : i + micro_batch]) for i in range(0, len(rows), micro_batch)]
