"""Puts the four models of PPO into their engines, and builds the trainer."""

from collections.abc import Sequence
from typing import Literal

from common.config.arguments import (
    LoraArguments,
    ModelArguments,
    SamplingArguments,
    TextArguments,
    ZeroArguments,
)
from common.data.template import Template
from common.errors import UserError
from common.hybrid_engine.engine import HybridRollout, RolloutArguments
from common.models.loading import HEAD_NAMES, disable_dropout, load_tokenizer
from common.ppo.arguments import PPOArguments
from common.ppo.models import RewardModel, Wanted, load_one_base, load_reward, load_separate
from common.ppo.sources import RewardSourceArguments, source_of, text_scorers
from common.ppo.trainer import PPOTrainer
from common.reward.callers import TextScorer
from common.reward.places import RewardPlace
from common.reward.scoring import RewardScorer
from common.training.distributed import world_size
from common.training.engine import build_engine, build_frozen
from common.zero.config import resolve_dtype, zero_of_adapters


def build_trainer(
    sft_path: str,
    places: Sequence[RewardPlace],
    reward_settings: RewardSourceArguments,
    critic_from: Literal["sft", "reward"],
    one_base: bool,
    template: Template,
    text: TextArguments,
    ppo: PPOArguments,
    sampling: SamplingArguments,
    rollout: RolloutArguments,
    model_settings: ModelArguments,
    lora: LoraArguments,
    zero: ZeroArguments,
    seed: int,
) -> PPOTrainer:
    """Actor and reference from the SFT model, critic from it or from the (first) reward model.

    Args:
        places: sources of rewards.
        one_base: all four on the SFT model's weights, which are in memory once.
        zero: resolved.

    Raises:
        UserError: models that don't fit together, settings that can't be combined.
    """
    check_sampling(sampling)
    ppo.shape(world_size())
    if ppo.rollout_batch_size % world_size():
        raise UserError(
            f"rollout_batch_size {ppo.rollout_batch_size} does not divide by {world_size()} ranks"
        )
    dtype = resolve_dtype(model_settings.dtype)
    scorers: dict[str, RewardScorer | TextScorer] = {
        **text_scorers(places, reward_settings, template)
    }
    paths = {p.name: p.path for p in places if p.kind == "model"}
    if one_base and len(paths) != 1:
        raise UserError(
            f"one_base: {len(paths)} sources of rewards are models, but exactly one must be, whose "
            "adapters are put on the shared weights; use --one_base false"
        )
    tokenizers = {
        name: load_tokenizer(path, trust_remote_code=model_settings.trust_remote_code)
        for name, path in paths.items()
    }
    reward = next((p for p in places if p.kind == "model"), None)
    first = reward.name if reward else ""
    load = load_one_base if one_base else load_separate
    models = load(
        Wanted(
            sft_path,
            reward,
            critic_from,
            template.tokenizer,
            tokenizers.get(first),
            model_settings,
            lora,
            zero,
            dtype,
        )
    )
    for model in (models.actor, models.critic):
        disable_dropout(model)  # adapters' too: the ratio compares two equal forwards

    trained = ppo.steps - ppo.critic_warmup_steps
    common = {"zero": zero_of_adapters(zero) if one_base else zero, "dtype": dtype, "whole": None}
    actor = build_engine(
        models.actor,
        optimizer=ppo.optimizer(ppo.actor_learning_rate),
        total_steps=max(trained, 1) * ppo.updates_per_rollout,
        adam_eps=1e-5,
        **common,
    )
    critic = build_engine(
        models.critic,
        optimizer=ppo.optimizer(ppo.critic_learning_rate),
        total_steps=ppo.updates,
        new_modules=HEAD_NAMES,
        new_rate=ppo.value_head_learning_rate,
        adam_eps=1e-5,
        **common,
    )
    for name, path in paths.items():
        if name == first:
            found = RewardModel(models.reward, models.score_mean, models.score_std)
        else:
            found = load_reward(path, tokenizers[name], model_settings)
            found = found._replace(model=build_frozen(found.model, zero=zero, dtype=dtype))
        own = Template(tokenizers[name], text.template)
        scorers[name] = RewardScorer(found.model, own, template, found.mean, found.std)
        scorers[name].check_limits(text, path)
    if one_base:  # its embeddings have no row for a pad token of the reward model's own
        scorers[first].pad_id = template.tokenizer.pad_token_id
    running = ppo.score_scaling == "running"
    return PPOTrainer(
        actor=actor,
        critic=critic,
        reference=models.reference,
        rewards=[source_of(p, scorers[p.name], running=running) for p in places],
        rollouts=HybridRollout.for_template(actor, template, text, sampling, rollout),
        template=template,
        settings=ppo,
        seed=seed,
        dtype=dtype,
    )


def check_sampling(sampling: SamplingArguments) -> None:
    """Warns when a filter makes the sampled distribution another than the one PPO trains."""
    import warnings

    plain = {"top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0, "min_response_tokens": 0}
    changed = [n for n, value in plain.items() if getattr(sampling, n) != value]
    if changed:
        warnings.warn(
            f"{', '.join(f'{n}={getattr(sampling, n)}' for n in changed)}: responses come from a "
            "changed distribution, but PPO's log-probabilities are of the model's own; its ratios "
            f"are then biased. Use {', '.join(f'{n} {plain[n]:g}' for n in changed)} for PPO",
            stacklevel=2,
        )
