"""A PPO trainer with models of a few thousand weights and a reward that a test decides on."""

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForTokenClassification

from common.config.arguments import SamplingArguments, ZeroArguments
from common.data.encoding import EncodedPrompt
from common.data.records import Message, Prompt
from common.hybrid_engine.engine import HybridRollout, RolloutArguments
from common.hybrid_engine.rollout import Rollout
from common.models.policy import PolicyModel
from common.models.scalar import ScalarModel, initialize_head
from common.ppo.arguments import PPOArguments
from common.ppo.sources import RewardSource, source_of
from common.ppo.trainer import PPOTrainer
from common.reward.callers import TextScorer
from common.reward.places import RewardPlace
from common.training.engine import build_engine

PAD, BOS, EOS = 0, 1, 2
ALONE = ZeroArguments("0")

VOCABULARY, LONGEST = 7, 12
"""Of the trainers in these tests; a response's limit in tokens."""

TEMPLATE = SimpleNamespace(end_id=EOS, tokenizer=SimpleNamespace(pad_token_id=PAD))
"""All that the trainer wants of a template."""


class Reward:
    """Stands for `RewardScorer`: raw scores from a function of (prompt's text, response ids)."""

    mean, std, pad_id = 0.0, 1.0, PAD
    scale = mean, std
    same_tokens = False

    def __init__(self, score: Callable[[str, tuple[int, ...]], float]) -> None:
        self.score = score

    def model(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """What the check of padding asks for: per-token scores that no padding can change."""
        return input_ids * 0.5

    def read(self, rollout: Rollout, prompts: Sequence[Sequence[Message]]) -> tuple[Tensor, Tensor]:
        """Ids and mask `[batch, width]`."""
        return rollout.input_ids, rollout.attention_mask

    def score_rollout(
        self, rollout: Rollout, prompts: Sequence[Sequence[Message]], batch_size: int
    ) -> Tensor:
        """Raw scores `[batch]`."""
        rows = zip(prompts, rollout.response_ids(), strict=True)
        return torch.tensor([self.score(p[-1].content, tuple(ids)) for p, ids in rows])


def texts_source(name: str, function: Callable, **given: Any) -> RewardSource:
    """A function of texts as a source of rewards; a text is its token ids in words."""
    words = SimpleNamespace(decode_response=lambda ids: " ".join(map(str, ids)))
    place = RewardPlace(name, name=name, **given)
    return source_of(place, TextScorer(name, function, words), running=False)


def small_llama(kind: Any, vocabulary: int, seed: int, width: int = 32) -> Any:
    """A one-layer Llama whose random weights are large enough for a far from uniform policy."""
    torch.manual_seed(seed)
    model = kind(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=64,
            pad_token_id=PAD,
            bos_token_id=BOS,
            eos_token_id=EOS,
            num_labels=1,
            classifier_dropout=0.0,
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0.0, 1.0 / math.sqrt(parameter.shape[1]))
    return model.eval()


def small_actor(vocabulary: int, seed: int = 3) -> Any:
    """A causal language model; equal seeds give equal weights."""
    return small_llama(LlamaForCausalLM, vocabulary, seed)


def small_critic(vocabulary: int, seed: int = 4, *, zero_head: bool = True) -> ScalarModel:
    """A critic; its head is 0 as in a fresh run, unless the values are to differ."""
    stock = small_llama(LlamaForTokenClassification, vocabulary, seed)
    if zero_head:
        initialize_head(stock.score, "critic", seed)
    return ScalarModel(stock)


def encoded(name: str, ids: Sequence[int]) -> EncodedPrompt:
    """A prompt of these token ids whose text is `name`."""
    return EncodedPrompt(list(ids), Prompt((Message("user", name),), "test:1"))


PROMPTS = [encoded(str(i), [1, *[3 + i % 4] * (1 + i % 3)]) for i in range(8)]

SETTINGS = PPOArguments(
    steps=4,
    rollout_batch_size=8,
    mini_batch_size=4,
    micro_batch_size=2,
    ppo_epochs=2,
    kl_coefficient=0.1,
    actor_learning_rate=1e-2,
    critic_learning_rate=1e-2,
    lr_schedule="constant",
    critic_warmup_steps=1,
)


def small_trainer(
    settings: PPOArguments,
    reward: Reward,
    *,
    vocabulary: int,
    max_response_tokens: int,
    zero: ZeroArguments = ALONE,
    seed: int = 0,
    kind: type[PPOTrainer] = PPOTrainer,
    reference: Any = None,
    checkpointing: bool = False,
) -> PPOTrainer:
    """A trainer with real DeepSpeed engines; must run inside `process_group()`.

    Args:
        reference: instead of a plain copy of the actor.
        checkpointing: actor and critic work activations out again in the backward pass.
    """
    running = settings.score_scaling == "running"
    common = {"zero": zero, "dtype": torch.float32, "adam_eps": 1e-5, "whole": None}
    trained = settings.steps - settings.critic_warmup_steps
    policy, values = small_actor(vocabulary), small_critic(vocabulary)
    if checkpointing:
        policy.gradient_checkpointing_enable({"use_reentrant": False})
        values.stock.gradient_checkpointing_enable({"use_reentrant": False})
    actor = build_engine(
        PolicyModel(policy),
        optimizer=settings.optimizer(settings.actor_learning_rate),
        total_steps=max(trained, 1) * settings.updates_per_rollout,
        **common,
    )
    return kind(
        actor=actor,
        critic=build_engine(
            values,
            optimizer=settings.optimizer(settings.critic_learning_rate),
            total_steps=settings.updates,
            new_modules=("score",),
            **common,
        ),
        reference=reference or PolicyModel(small_actor(vocabulary)),
        rewards=[source_of(RewardPlace("reward", name="reward"), reward, running=running)],
        template=TEMPLATE,
        settings=settings,
        rollouts=HybridRollout(
            actor,
            SamplingArguments(generation_batch_size=settings.rollout_batch_size),
            RolloutArguments(),
            eos_id=EOS,
            pad_id=PAD,
            max_new_tokens=max_response_tokens,
        ),
        seed=seed,
    )
