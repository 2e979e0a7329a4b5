"""PPO on one base is PPO on four models: the same steps, under every way of spreading weights."""

import pytest
import torch

from tests.common.models.test_roles import IDS, MASK, PLAIN, REWARD_LORA, WIDTH, randomized
from tests.models import save_tiny
from tests.ranks import run_ranks, shard_everything

STEPS = 3
PROMPTS = ["Hi", "Say it.", "What is it?", "No", "Two words", "One", "Tell me more.", "Why"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    from common.models.loading import load_tokenizer, save_model, separate_pad
    from common.models.scalar import load_scalar_model

    root = tmp_path_factory.mktemp("models")
    sft = str(save_tiny(root / "sft", "llama-gqa"))
    tokenizer = separate_pad(load_tokenizer(sft))
    reward = load_scalar_model(
        sft, "reward", PLAIN, new_head=True, tokenizer=tokenizer, lora=REWARD_LORA
    )
    save_model(randomized(reward, 1), tokenizer, root / "reward", "")
    return sft, str(root / "reward")


def fresh_adapter(tensor, **settings):
    """Instead of random draws, whose order differs: adapters of one shape begin alike."""
    generator = torch.Generator().manual_seed(tensor.shape[1])
    with torch.no_grad():
        return tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)


def train(sft, reward, zero, one_base, checkpointing):
    """(metrics of each step, what actor, reference, critic and reward model answer at the end)."""
    from common.config.arguments import (
        LoraArguments,
        ModelArguments,
        SamplingArguments,
        TextArguments,
        ZeroArguments,
    )
    from common.data.encoding import EncodedPrompt
    from common.data.records import Message, Prompt
    from common.data.template import Template
    from common.hybrid_engine.engine import RolloutArguments
    from common.models.loading import load_tokenizer
    from common.models.policy import score_responses
    from common.ppo.arguments import PPOArguments
    from common.ppo.build import build_trainer
    from common.ppo.sources import RewardSourceArguments
    from common.reward.places import RewardPlace
    from common.training.distributed import rank, world_size

    template = Template(load_tokenizer(sft), "ice")
    trainer = build_trainer(
        sft,
        [RewardPlace(reward, name="reward")],
        RewardSourceArguments(),
        "sft",
        one_base,
        template,
        TextArguments(max_response_tokens=8),
        PPOArguments(
            steps=STEPS,
            rollout_batch_size=8,
            mini_batch_size=4,
            micro_batch_size=2,
            actor_learning_rate=2e-3,
            critic_learning_rate=2e-3,
            lr_schedule="constant",
            no_end_score=-0.5,
            weight_decay=0.01,
            max_grad_norm=0.5,
        ),
        SamplingArguments(generation_batch_size=8),
        RolloutArguments(),
        ModelArguments(gradient_checkpointing=checkpointing),
        LoraArguments(lora_rank=2),
        ZeroArguments(zero),
        0,
    )
    rows = [(Message("user", text),) for text in PROMPTS]
    prompts = [EncodedPrompt(template.encode_prompt(m), Prompt(m, "test:1")) for m in rows]
    metrics = [trainer.iterate(i, prompts[rank() :: world_size()]) for i in range(1, STEPS + 1)]
    with torch.no_grad():
        answers = [
            score_responses(trainer.actor, IDS, MASK, WIDTH).logprobs,
            score_responses(trainer.reference, IDS, MASK, WIDTH).logprobs,
            trainer.critic(IDS, MASK)[MASK],
            trainer.rewards[0].scorer.score_batch(IDS, MASK),
        ]
    return [{k: v for k, v in m.items() if not k.startswith("time")} for m in metrics], answers


def train_both_ways(sft, reward, zero, checkpointing):
    from common.training.engine import process_group

    shard_everything()
    torch.nn.init.kaiming_uniform_ = fresh_adapter
    with process_group():
        return [train(sft, reward, zero, one_base, checkpointing) for one_base in (True, False)]


@pytest.mark.parametrize(
    ("ranks", "zero", "checkpointing"),
    [
        (2, "3", True),
        pytest.param(1, "0", False, marks=pytest.mark.slow),
        pytest.param(2, "3", False, marks=pytest.mark.slow),
        pytest.param(2, "2", False, marks=pytest.mark.slow),
        pytest.param(2, "0", True, marks=pytest.mark.slow),
        pytest.param(1, "3", False, marks=pytest.mark.slow),
    ],
)
def test_steps_are_those_of_four_separate_models(folders, ranks, zero, checkpointing):
    for found in run_ranks(
        train_both_ways, ranks, *folders, zero, checkpointing, start_group=False
    ):
        (ours, our_answers), (theirs, their_answers) = found
        assert ours[-1]["kl/sequence_k1"] > 1e-3  # the actor moved
        for mine, other in zip(ours, theirs, strict=True):
            assert mine == pytest.approx(other, rel=1e-3, abs=1e-5)
        for mine, other in zip(our_answers, their_answers, strict=True):
            assert torch.allclose(mine, other, atol=1e-5)
        assert (our_answers[0] - our_answers[1]).abs().max() > 1e-2
