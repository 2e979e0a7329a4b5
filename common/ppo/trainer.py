"""One PPO iteration: generate, score, train (paper §3.3, Figure 1)."""

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from common.data.encoding import EncodedPrompt
from common.data.template import Template
from common.errors import NotFinite
from common.hybrid_engine.engine import HybridRollout
from common.hybrid_engine.rollout import Rollout
from common.models.policy import score_responses
from common.ppo.arguments import PPOArguments
from common.ppo.experience import Experience, make_experience, micro_batches, response_values
from common.ppo.invariants import (
    check_ratio,
    check_reference,
    check_reward_padding,
    tolerance,
)
from common.ppo.kl import KLController
from common.ppo.losses import policy_loss, value_loss
from common.ppo.pretraining import PretrainingMix
from common.ppo.sources import RewardSource
from common.ppo.statistics import rollout_sums, rollout_values
from common.training.average import WeightAverage
from common.training.distributed import (
    all_reduce_scalars,
    all_reduce_sum,
    any_rank,
    device,
    fail_together,
    gather_objects,
    world_size,
)
from common.training.distributed import rank as this_rank
from common.training.engine import optimizer_step
from common.training.offload import Waiting, optimizer_states, weights_of
from common.training.peak import PeakMemory
from common.training.resume.states import Stateful
from common.training.seeding import derive_seed
from common.training.watchdog import WATCHDOG


@dataclass
class PPOTrainer:
    """The four models, and what changes from one iteration to the next."""

    actor: Any
    """DeepSpeed engine around a causal language model."""
    critic: Any
    """DeepSpeed engine around a `ScalarModel`."""
    reference: nn.Module
    rewards: Sequence[RewardSource]
    rollouts: HybridRollout
    """Generates from the actor."""
    template: Template
    settings: PPOArguments
    seed: int
    dtype: torch.dtype = torch.float32
    pretraining: PretrainingMix | None = None
    """Trained on beside the actor's updates."""
    kl: KLController = field(init=False)
    average: WeightAverage | None = field(init=False)
    """Of the actor's weights, where asked for."""

    def __post_init__(self) -> None:
        s = self.settings
        self.kl = KLController(s.kl_coefficient, s.kl_target, s.kl_horizon)
        self.average = WeightAverage(self.actor, s.ema_decay) if s.ema_decay else None
        self._frozen = Waiting(
            lambda: weights_of(self.reference, *(r.scorer.model for r in self.rewards)),
            constant=True,
        )
        self._moments = Waiting(lambda: optimizer_states(self.actor, self.critic))
        if s.offload_idle:
            self._frozen.send()

    @property
    def temperature(self) -> float:
        """At which responses are sampled, and all log-probabilities taken."""
        return self.rollouts.sampling.temperature

    def iterate(self, step: int, prompts: Sequence[EncodedPrompt]) -> dict[str, float]:
        """Rollout, experience and updates for this rank's prompts. A collective.

        Args:
            step: counted from 1; the first `critic_warmup_steps` leave the actor alone.
            prompts: equally many on every rank.

        Returns:
            the step's metrics, over all ranks.
        """
        started = _now()
        WATCHDOG.at(f"step {step}, rollout of the actor")
        with self._moments.away() if self.settings.offload_idle else contextlib.nullcontext():
            rollout = self.generate(prompts, "rollout", step)
            generated = _now()
            peaks = {"generate": PeakMemory.of_phase()}
            WATCHDOG.at(f"step {step}, scoring")
            first = None
            if self.settings.reuse_scoring:
                first = self.plan(rollout.attention_mask, step)[0][0][0]
            trains = self.trains_actor(step)
            experience = self.experience(rollout, prompts, first, train_actor=trains)
            scored = _now()
            peaks["score"] = PeakMemory.of_phase()
            if self.rollouts.is_due(step):
                self.rollouts.check(rollout, experience.logprobs)
            if step == 1:
                self.check_start(rollout, experience, prompts)
        sums = self.update(experience, step)
        trained = _now()
        peaks["train"] = PeakMemory.of_phase()
        values = rollout_values(all_reduce_scalars({**rollout_sums(experience, rollout), **sums}))
        values["kl/coefficient"] = self.kl.coefficient
        self.kl.update(values["kl/sequence_k1"], self.settings.rollout_batch_size)
        values |= {
            "time/generate": generated - started,
            "time/score": scored - generated,
            "time/train": trained - scored,
            "time/step": _now() - started,
        }
        values |= {
            f"memory/{phase}_{kind}": size
            for phase, sizes in peaks.items()
            for kind, size in sizes.items()
        }
        values["time/tokens_per_second"] = values.pop("tokens") / values["time/step"]
        return values

    def generate(
        self,
        prompts: Sequence[EncodedPrompt],
        purpose: str,
        step: int,
        places: Sequence[int] | None = None,
    ) -> Rollout:
        """One response a prompt from the actor as it is now. A collective.

        Args:
            purpose, step: name the random numbers.
            places: of the prompts in the whole batch, over all ranks, of which each has its own
                stream of them; by default every `world_size`-th from this rank's on.

        Raises:
            NotFinite: the actor gave some rank's token no finite probability.
        """
        if places is None:
            places = [this_rank() + world_size() * i for i in range(len(prompts))]
        fault = ""
        try:
            rollout = self.rollouts.respond(
                [p.ids for p in prompts], derive_seed(self.seed, purpose, step), streams=places
            )
        except NotFinite as error:  # of this rank's rows; the others must not wait for it
            fault = str(error)
        fail_together(fault, NotFinite)
        return rollout

    def states(self) -> dict[str, Stateful]:
        """What else a checkpoint must hold, the same on all ranks."""
        moments = {f"moments/{r.name}": r.scale.moments for r in self.rewards}
        optional = {**moments, "average": self.average}
        return {"kl": self.kl, **{name: state for name, state in optional.items() if state}}

    def trains_actor(self, step: int) -> bool:
        """Whether the critic's warm-up is over."""
        return step > self.settings.critic_warmup_steps

    def plan(self, attention_mask: Tensor, step: int) -> list[list[list[Tensor]]]:
        """This rank's rows of each micro-batch of each mini-batch of each epoch.

        Args:
            attention_mask: `[batch, width]`, of the rollout.
        """
        s = self.settings
        local, micro = s.mini_batch_size // world_size(), s.shape(world_size()).micro_batch_size
        lengths = attention_mask.sum(dim=1)
        orders = [self._order(len(lengths), step, epoch) for epoch in range(s.ppo_epochs)]
        return [micro_batches(lengths, order, local, micro) for order in orders]

    def experience(
        self,
        rollout: Rollout,
        prompts: Sequence[EncodedPrompt],
        first: Tensor | None = None,
        *,
        train_actor: bool = True,
    ) -> Experience:
        """Scores a rollout with all four models.

        Args:
            first, train_actor: see `make_experience`.
        """
        self.actor.train()  # dropout is 0 anyway; gradient checkpointing works in this mode only
        self.critic.train()
        with self._frozen.here():
            rewards: dict[str, Any] = {
                r.name: r.scorer.score_batch
                if r.scorer.same_tokens
                else self.score(r, rollout, prompts, self.settings.score_batch_size)
                for r in self.rewards
            }
            return make_experience(
                rollout,
                rewards,
                self.actor,
                self.reference,
                self.critic,
                self.settings,
                kl_coefficient=self.kl.coefficient,
                temperature=self.temperature,
                scales={r.name: r.scale for r in self.rewards},
                first=first,
                train_actor=train_actor,
            )

    def score(
        self,
        source: RewardSource,
        rollout: Rollout,
        prompts: Sequence[EncodedPrompt],
        batch_size: int,
    ) -> Tensor:
        """Raw scores of one source, `[batch]`. A collective.

        Raises:
            UserError: a function or an endpoint failed on some rank.
        """
        WATCHDOG.using(f"reward {source.name}")
        with self._frozen.here():
            return source.scorer.score_rollout(
                rollout, [p.record.messages for p in prompts], batch_size
            )

    def check_start(
        self, rollout: Rollout, experience: Experience, prompts: Sequence[EncodedPrompt]
    ) -> None:
        """The invariants of a fresh run (see `common.ppo.invariants`). A collective."""
        limit = tolerance(self.dtype)
        check_ratio(self.actor, rollout, experience, self.temperature, limit)
        check_reference(experience, limit)
        for scorer in (r.scorer for r in self.rewards if r.scorer.model is not None):
            ids, mask = scorer.read(rollout, [p.record.messages for p in prompts])
            deviation = 1.0 if scorer.std is None else max(scorer.std, 1e-6)
            allowed = max(limit, 0.01) * deviation  # a hundredth of one
            with self._frozen.here():
                check_reward_padding(scorer.model, ids[:4], mask[:4], scorer.pad_id, allowed)

    def update(self, experience: Experience, step: int) -> dict[str, Tensor | float]:
        """PPO epochs over one rollout; returns sums for this step's metrics."""
        s = self.settings
        plan = self.plan(experience.attention_mask, step)
        counts = token_counts(experience, plan)
        train_actor = self.trains_actor(step)
        first = experience.first
        sums: dict[str, Tensor | float] = {"updates": 0.0, "update_tokens": 0.0}
        norms = {"policy/grad_norm": 0.0, "value/grad_norm": 0.0}
        rates = {
            "policy/learning_rate": self.actor.get_lr()[0] if train_actor else 0.0,
            "value/learning_rate": self.critic.get_lr()[0],
        }
        stopped = False
        for epoch, batches in enumerate(plan):
            for number, rows in enumerate(batches):
                if stopped:
                    break
                parts = [experience.rows(r) for r in rows]
                count = counts[epoch][number]
                place = f"step {step}, epoch {epoch + 1}, mini-batch {number + 1}"
                watched = s.early_stop_kl is not None and train_actor
                before = _value(sums.get("approx_kl", 0.0)) if watched else 0.0
                if first:
                    parts[0].first, experience.first, first = first, None, None
                if train_actor:
                    WATCHDOG.at(f"{place}, training of the actor")
                    losses = [lambda p=p: self._policy_loss(p, sums) for p in parts]
                    if self.pretraining:
                        update = (step - 1) * s.updates_per_rollout + epoch * len(batches) + number
                        losses = self.pretraining.beside(losses, self.actor, count, update, sums)
                    norms["policy/grad_norm"] += optimizer_step(
                        self.actor,
                        losses,
                        count,
                        place,
                        lambda total, place=place: self._check(total, "policy", place),
                    )
                    if self.average:
                        self.average.update()
                WATCHDOG.at(f"{place}, training of the critic")
                norms["value/grad_norm"] += optimizer_step(
                    self.critic,
                    [lambda p=p: self._value_loss(p, sums) for p in parts],
                    count,
                    place,
                    lambda total, place=place: self._check(total, "value", place),
                )
                sums["updates"] += 1.0 / world_size()
                sums["update_tokens"] += count / world_size()
                if watched:
                    added = torch.as_tensor(_value(sums["approx_kl"]) - before)
                    mean = float(all_reduce_sum(added.to(device()))) / max(count, 1.0)
                    stopped = mean > s.early_stop_kl
        sums["early_stops"] = float(stopped) / world_size()
        return sums | {k: v / world_size() for k, v in {**norms, **rates}.items()}

    def _policy_loss(self, batch: Experience, sums: dict[str, Tensor | float]) -> Tensor:
        s = self.settings
        if batch.first:
            new, spread = batch.first.logprobs, batch.first.entropy
        else:
            new, spread = score_responses(
                self.actor,
                batch.input_ids,
                batch.attention_mask,
                batch.mask.shape[1],
                self.temperature,
                entropy="gradient" if s.entropy_coefficient else "no",
            )
        result = policy_loss(
            new, batch.logprobs, batch.advantages, batch.mask, s.clip_range, s.dual_clip
        )
        _add(sums, policy_loss=result.loss, clipped=result.clipped, approx_kl=result.approx_kl)
        if not s.entropy_coefficient:
            return result.loss
        return result.loss - s.entropy_coefficient * spread.masked_fill(~batch.mask, 0.0).sum()

    def _value_loss(self, batch: Experience, sums: dict[str, Tensor | float]) -> Tensor:
        if batch.first:
            values = batch.first.values
        else:
            width = batch.mask.shape[1]
            values = response_values(self.critic, batch.input_ids, batch.attention_mask, width)
        result = value_loss(
            values, batch.values, batch.returns, batch.mask, self.settings.value_clip_range
        )
        _add(sums, value_loss=result.loss, value_clipped=result.clipped)
        return result.loss

    def _order(self, rows: int, step: int, epoch: int) -> Tensor:
        """A fresh permutation of this rank's rows."""
        generator = torch.Generator().manual_seed(
            derive_seed(self.seed, "ppo order", step, epoch, this_rank())
        )
        return torch.randperm(rows, generator=generator).to(device())

    def _check(self, total: Tensor, name: str, place: str) -> None:
        """Stops all ranks when a loss is NaN or infinite on any. A collective."""
        value = float(total)
        if any_rank(not math.isfinite(value)):
            # Only rank 0 prints: it must know the other ranks' losses.
            losses = {r: v for r, v in enumerate(gather_objects(value)) if not math.isfinite(v)}
            where = ", ".join(f"{v} on rank {r}" for r, v in losses.items())
            raise NotFinite(
                f"the {name} loss is {where} at {place}; the models were not saved. Lower "
                f"{'actor' if name == 'policy' else 'critic'}_learning_rate or clip_range"
            )


def token_counts(
    experience: Experience, plan: Sequence[Sequence[Sequence[Tensor]]]
) -> list[list[float]]:
    """Actions in each mini-batch of each epoch, over all ranks, in one collective.

    Args:
        plan: of `PPOTrainer.plan`.
    """
    lengths = experience.mask.sum(dim=1).double()
    local = [[lengths[torch.cat(list(rows))].sum() for rows in batches] for batches in plan]
    return all_reduce_sum(torch.stack([torch.stack(row) for row in local])).tolist()


def _add(sums: dict[str, Tensor | float], **values: Tensor) -> None:
    for name, value in values.items():
        sums[name] = sums.get(name, 0.0) + value.detach()


def _value(x: Tensor | float) -> float:
    return float(x)


def _now() -> float:
    """Seconds, after the device has finished what was asked of it."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
