"""Loads the four models of PPO, checks that they fit together, and builds the trainer."""

from typing import Literal

from common.config.arguments import (
    LoraArguments,
    ModelArguments,
    SamplingArguments,
    TextArguments,
)
from common.data.template import Template
from common.errors import UserError
from common.hybrid_engine.engine import HybridRollout, RolloutArguments
from common.models.loading import disable_dropout, load_causal_lm, load_tokenizer
from common.models.policy import PolicyModel
from common.models.scalar import load_scalar_model
from common.ppo.arguments import PPOArguments
from common.ppo.invariants import check_embeddings, check_vocabulary
from common.ppo.trainer import PPOTrainer
from common.reward.scoring import RewardScorer
from common.training.distributed import world_size
from common.training.engine import build_engine, build_frozen
from common.zero.config import resolve_dtype


def build_trainer(
    sft_path: str,
    reward_path: str,
    critic_from: Literal["sft", "reward"],
    template: Template,
    text: TextArguments,
    ppo: PPOArguments,
    sampling: SamplingArguments,
    rollout: RolloutArguments,
    model_settings: ModelArguments,
    lora: LoraArguments,
    zero: str,
    seed: int,
) -> PPOTrainer:
    """Actor and reference from the SFT model, critic from it or from the reward model.

    Args:
        zero: a resolved ZeRO config.

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

    reward_tokenizer = load_tokenizer(
        reward_path, trust_remote_code=model_settings.trust_remote_code
    )
    reward_model = load_scalar_model(reward_path, "reward", model_settings, new_head=False)
    check_embeddings(reward_model.inner, reward_tokenizer, reward_path)
    config = reward_model.inner.config
    mean, std = getattr(config, "score_mean", 0.0), getattr(config, "score_std", 1.0)

    if critic_from == "reward":
        check_vocabulary(template.tokenizer, reward_tokenizer, "critic (from the reward model)")
    critic = load_scalar_model(
        sft_path if critic_from == "sft" else reward_path,
        "critic",
        model_settings,
        new_head=True,
        lora=lora,
        head_from=(reward_model, mean, std) if critic_from == "reward" else None,
    )
    actor = load_causal_lm(sft_path, model_settings, lora)
    check_embeddings(actor, template.tokenizer, sft_path)
    for model in (actor, critic):
        disable_dropout(model)  # adapters' too: the ratio compares two equal forwards

    trained = ppo.steps - ppo.critic_warmup_steps
    actor_engine = build_engine(
        PolicyModel(actor),
        zero=zero,
        dtype=dtype,
        optimizer=ppo.optimizer(ppo.actor_learning_rate),
        total_steps=max(trained, 1) * ppo.updates_per_rollout,
        adam_eps=1e-5,
        whole=None,
    )
    return PPOTrainer(
        actor=actor_engine,
        critic=build_engine(
            critic,
            zero=zero,
            dtype=dtype,
            optimizer=ppo.optimizer(ppo.critic_learning_rate),
            total_steps=ppo.updates,
            new_modules=("score", "classifier"),
            adam_eps=1e-5,
            whole=None,
        ),
        reference=build_frozen(
            PolicyModel(load_causal_lm(sft_path, model_settings)), zero=zero, dtype=dtype
        ),
        reward=RewardScorer(
            build_frozen(reward_model, zero=zero, dtype=dtype),
            Template(reward_tokenizer, text.template),
            template,
            mean,
            std,
        ),
        rollouts=HybridRollout.for_template(actor_engine, template, text, sampling, rollout),
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
