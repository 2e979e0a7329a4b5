"""Each start-up check passes on a sound set-up, and stops the run when its invariant is broken."""

import copy

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2ForSequenceClassification, LlamaForSequenceClassification

from common.config.arguments import SamplingArguments
from common.errors import UserError
from common.hybrid_engine.generation import sample_responses
from common.models.loading import disable_dropout
from common.models.scalar import ScalarModel
from common.ppo.arguments import PPOArguments
from common.ppo.experience import make_experience
from common.ppo.invariants import (
    check_embeddings,
    check_ratio,
    check_reference,
    check_reward_padding,
    check_vocabulary,
    tolerance,
)
from common.ppo.running import Scale
from common.training.distributed import rank
from tests.common.ppo.small import EOS, PAD, small_actor, small_critic, small_llama
from tests.models import byte_tokenizer, tiny_causal_lm
from tests.ranks import run_ranks

VOCABULARY = 12
PROMPTS = [[1, 5, 7, 9], [1, 4], [1, 6, 6], [1, 3, 8, 10, 11], [1], [1, 11, 3]]
LIMIT = tolerance(torch.float32)


def rollout_of(model):
    return sample_responses(
        model,
        PROMPTS,
        eos_id=EOS,
        pad_id=PAD,
        max_new_tokens=6,
        sampling=SamplingArguments(temperature=0.8),
        seed=1,
    )


def experience_of(actor, reference=None):
    """A rollout of `actor` and its experience, in eval mode, as the trainer makes them."""
    rollout = rollout_of(actor.eval())
    experience = make_experience(
        rollout,
        {"reward": torch.zeros(len(PROMPTS))},
        actor,
        actor if reference is None else reference,
        small_critic(VOCABULARY),
        PPOArguments(),
        kl_coefficient=0.1,
        temperature=0.8,
        scales={"reward": Scale()},
    )
    return rollout, experience


def ratio_check(actor, *, temperature: float = 0.8) -> None:
    check_ratio(actor, *experience_of(actor), temperature, LIMIT)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_sound_policy_passes(kind):
    actor = tiny_causal_lm(kind, VOCABULARY)
    disable_dropout(actor)  # GPT-2 has some, as a module
    rollout, experience = experience_of(actor)
    check_ratio(actor, rollout, experience, 0.8, LIMIT)
    check_reference(experience, LIMIT)


def test_dropout_fails_the_ratio():
    actor = tiny_causal_lm("gpt2", VOCABULARY)
    assert any(isinstance(m, nn.Dropout) and m.p > 0 for m in actor.modules())
    with pytest.raises(UserError, match="before any update .* differ by .* nats.*dropout is on"):
        ratio_check(actor)


def test_attention_dropout_which_is_no_module_fails_the_ratio():
    actor = small_actor(VOCABULARY)
    for layer in actor.model.layers:
        layer.self_attn.attention_dropout = 0.5
    with pytest.raises(UserError, match="dropout is on"):
        ratio_check(actor)


def positions_from_the_right():
    """GPT-2 that counts its positions from the widest row's end: padding then shifts them."""
    actor = tiny_causal_lm("gpt2", VOCABULARY)
    disable_dropout(actor)
    forward = actor.transformer.forward

    def shifted(*args, position_ids=None, **rest):
        if position_ids is None:
            return forward(*args, **rest)
        return forward(*args, position_ids=position_ids + 40 - position_ids.shape[1], **rest)

    actor.transformer.forward = shifted
    return actor


def test_padding_that_leaks_fails_the_ratio():
    rollout, experience = experience_of(positions_from_the_right())
    with pytest.raises(UserError, match="padding leaks"):
        check_ratio(positions_from_the_right(), rollout, experience, 0.8, LIMIT)


def test_another_temperature_fails_the_ratio():
    with pytest.raises(UserError, match="log-probabilities differ"):
        ratio_check(small_actor(VOCABULARY), temperature=1.0)


def test_garbage_in_padding_does_not_fail_the_checks():
    actor = small_actor(VOCABULARY)
    rollout, experience = experience_of(actor)
    experience.logprobs = experience.logprobs.masked_fill(~experience.mask, 50.0)
    check_ratio(actor, rollout, experience, 0.8, LIMIT)
    check_reference(experience, LIMIT)


def test_a_reference_with_other_weights_fails():
    actor = small_actor(VOCABULARY)
    other = copy.deepcopy(actor)
    with torch.no_grad():
        other.lm_head.weight[5] += 0.05
    experience = experience_of(actor, reference=other)[1]
    with pytest.raises(UserError, match="actor and reference differ by .*different weights"):
        check_reference(experience, LIMIT)


def test_nan_is_not_within_any_tolerance():
    actor = small_actor(VOCABULARY)
    rollout, experience = experience_of(actor)
    reference = experience.ref_logprobs.clone()
    reference[2, 0] = float("nan")
    experience.ref_logprobs = reference
    with pytest.raises(UserError, match="actor and reference"):
        check_reference(experience, LIMIT)
    with torch.no_grad():
        actor.lm_head.weight[0, 0] = float("nan")
    with pytest.raises(UserError, match="before any update"):
        check_ratio(actor, rollout, experience, 0.8, LIMIT)


# Reward


def reward_model(kind: str) -> ScalarModel:
    if kind == "llama":
        return ScalarModel(small_llama(LlamaForSequenceClassification, VOCABULARY, seed=2))
    torch.manual_seed(2)
    stock = GPT2ForSequenceClassification(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=16,
            n_layer=1,
            n_head=2,
            n_positions=64,
            num_labels=1,
            pad_token_id=PAD,
        )
    )
    with torch.no_grad():
        for parameter in stock.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(8.0)
    return ScalarModel(stock.eval())


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_sound_reward_model_passes(kind):
    rollout = rollout_of(small_actor(VOCABULARY))
    check_reward_padding(
        reward_model(kind), rollout.input_ids, rollout.attention_mask, PAD, 0.01 * LIMIT
    )


class IgnoresMask(nn.Module):
    """A reward model whose backbone attends to padding as to anything else."""

    def __init__(self, inner: ScalarModel) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, input_ids, attention_mask):
        return self.inner(input_ids, torch.ones_like(attention_mask))


class IgnoresPositions(nn.Module):
    """A reward model that counts positions from the left edge, padding or not."""

    def __init__(self, inner: ScalarModel) -> None:
        super().__init__()
        self.stock = inner.stock

    def forward(self, input_ids, attention_mask):
        hidden = self.stock.base_model(
            input_ids=input_ids, attention_mask=attention_mask
        ).last_hidden_state
        return self.stock.score(hidden).squeeze(-1)


@pytest.mark.parametrize(
    ("broken", "kind"), [(IgnoresMask, "llama"), (IgnoresMask, "gpt2"), (IgnoresPositions, "gpt2")]
)
def test_a_reward_model_that_sees_padding_fails(broken, kind):
    rollout = rollout_of(small_actor(VOCABULARY))
    with pytest.raises(UserError, match="score changes by .* with padding"):
        check_reward_padding(
            broken(reward_model(kind)), rollout.input_ids, rollout.attention_mask, PAD, LIMIT
        )


# Tokens


def test_equal_tokenizers_pass_and_a_pad_token_of_its_own_does_too():
    check_vocabulary(byte_tokenizer(), byte_tokenizer(), "critic")
    other = byte_tokenizer(pad="</s>")
    other.add_special_tokens({"pad_token": "<|pad|>"})
    check_vocabulary(byte_tokenizer(pad="</s>"), other, "critic")


def test_another_end_token_fails():
    other = byte_tokenizer()
    other.eos_token = "<s>"
    with pytest.raises(UserError, match="eos_token_id is 2 for the actor and 1 for the critic"):
        check_vocabulary(byte_tokenizer(), other, "critic")


def test_a_token_with_another_number_fails():
    actor = byte_tokenizer()
    actor.add_tokens(["alpha", "beta"])
    other = byte_tokenizer()
    other.add_tokens(["beta", "alpha"])
    with pytest.raises(UserError, match="token '(alpha|beta)' is 2.. for the actor and 2.. for"):
        check_vocabulary(actor, other, "critic")


def test_a_token_that_the_other_lacks_fails():
    actor = byte_tokenizer()
    actor.add_tokens(["alpha"])
    with pytest.raises(UserError, match="token 'alpha' is 259 for the actor and None"):
        check_vocabulary(actor, byte_tokenizer(), "reference")


def test_a_tokenizer_larger_than_its_model_fails():
    tokenizer = byte_tokenizer()
    check_embeddings(tiny_causal_lm("llama", len(tokenizer)), tokenizer, "models/sft")
    tokenizer.add_tokens(["alpha"])
    with pytest.raises(UserError, match="models/sft: the tokenizer has 260 tokens.*only 259"):
        check_embeddings(tiny_causal_lm("llama", 259), tokenizer, "models/sft")


# Ranks


def fail_on_second_rank() -> str:
    experience = experience_of(small_actor(VOCABULARY))[1]
    if rank() == 1:
        experience.ref_logprobs = experience.ref_logprobs + 1.0
    try:
        check_reference(experience, LIMIT)
    except UserError as error:
        return str(error)
    return "passed"


def test_a_check_that_fails_on_one_rank_stops_both():
    answers = run_ranks(fail_on_second_rank, 2)
    assert all(answer.startswith("start-up check failed") for answer in answers)
    # Rank 0 is the one that prints, and its own rows were fine.
    assert all("differ by 1 nats" in answer for answer in answers)
