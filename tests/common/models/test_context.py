"""Rows as long as the settings allow, against what a model can see."""

import warnings

import pytest
import torch

from common.config.arguments import TextArguments
from common.data.records import Message
from common.data.template import Template
from common.errors import UserError
from common.hybrid_engine.rollout import Rollout
from common.models.context import check_context, learned_positions
from common.models.policy import PolicyModel
from common.reward.scoring import RewardScorer
from tests.models import byte_tokenizer, tiny_causal_lm


@pytest.mark.parametrize("kind", ["gpt2", "opt"])
def test_the_longest_row_that_fits_is_the_one_that_the_model_can_run(kind):
    model = tiny_causal_lm(kind)
    assert learned_positions(model) == learned_positions(PolicyModel(model)) == 256
    check_context(model, 256, "base")
    assert model(torch.ones(1, 256, dtype=torch.long)).logits.shape[1] == 256
    with pytest.raises(UserError, match="^base sees 256 tokens, but rows may have 257 .*: lower"):
        check_context(model, 257, "base")
    with pytest.raises(IndexError):
        model(torch.ones(1, 257, dtype=torch.long))


def test_a_model_that_works_its_positions_out_is_only_warned_of():
    model = tiny_causal_lm("llama")
    assert learned_positions(model) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_context(model, 256, "base")
    with pytest.warns(UserWarning, match="base sees 256 tokens"):
        check_context(model, 257, "base")
    assert model(torch.ones(1, 257, dtype=torch.long)).logits.shape[1] == 257


def scorer_of(kind, reader, writer):
    templates = Template(reader), Template(writer)
    return RewardScorer(tiny_causal_lm(kind), *templates, 0.0, 1.0)


def rolled(template, prompt, tokens):
    """A rollout of one row with a response of so many tokens, all of them "x"."""
    response = template.tokenizer.convert_tokens_to_ids("x")
    ids = torch.tensor([[*template.encode_prompt(prompt), *[response] * tokens]])
    return Rollout(ids, torch.ones_like(ids).bool(), tokens, torch.tensor([True]), ids * 0.0)


def test_a_reward_model_that_reads_texts_in_other_tokens_says_which_are_too_long():
    other = byte_tokenizer()
    other.add_tokens(["promises"])  # the actor's alone
    scorer, asked = scorer_of("gpt2", byte_tokenizer(), other), [Message("user", "why?")]
    template = scorer.template
    room = 256 - len(template.encode_prompt(asked)) - len(template.encode_response(""))
    assert scorer.read(rolled(scorer.policy, asked, room), [asked])[0].shape == (1, 256)
    with pytest.raises(UserError, match="257 tokens long to the reward model, which sees 256"):
        scorer.read(rolled(scorer.policy, asked, room + 1), [asked])
    scorer.check_limits(TextArguments(), "reward")  # how long they are shows only then


def test_a_reward_model_that_reads_the_actors_tokens_is_checked_before():
    text = TextArguments(max_prompt_tokens=200, max_response_tokens=57)
    for kind in ("gpt2", "llama"):
        scorer = scorer_of(kind, byte_tokenizer(), byte_tokenizer())
        assert scorer.same_tokens
        if kind == "llama":
            scorer.check_limits(text, "reward")
            continue
        scorer.check_limits(TextArguments(max_prompt_tokens=200, max_response_tokens=56), "reward")
        with pytest.raises(UserError, match="^reward sees 256 tokens, but rows may have 257: low"):
            scorer.check_limits(text, "reward")
