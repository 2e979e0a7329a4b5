"""Rows as long as the settings allow, against what a model can see."""

import warnings

import pytest
import torch

from common.config.arguments import TextArguments
from common.data.records import Message
from common.data.template import Template
from common.errors import UserError
from common.models.context import check_context, learned_positions
from common.models.policy import PolicyModel
from common.reward.scoring import RewardScorer
from tests.models import byte_tokenizer, tiny_causal_lm


def text(prompt, response):
    return TextArguments(max_prompt_tokens=prompt, max_response_tokens=response)


@pytest.mark.parametrize("kind", ["gpt2", "opt"])
def test_the_longest_row_that_fits_is_the_one_that_the_model_can_run(kind):
    model = tiny_causal_lm(kind)
    assert learned_positions(model) == learned_positions(PolicyModel(model)) == 256
    check_context(model, text(200, 56), "base")
    assert model(torch.ones(1, 256, dtype=torch.long)).logits.shape[1] == 256
    with pytest.raises(UserError, match="^base sees 256 tokens, but .*200.*57.* rows of 257: low"):
        check_context(model, text(200, 57), "base")
    with pytest.raises(IndexError):
        model(torch.ones(1, 257, dtype=torch.long))


def test_a_model_that_works_its_positions_out_is_only_warned_of():
    model = tiny_causal_lm("llama")
    assert learned_positions(model) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_context(model, text(200, 56), "base")
    with pytest.warns(UserWarning, match="base sees 256 tokens"):
        check_context(model, text(200, 57), "base")
    assert model(torch.ones(1, 257, dtype=torch.long)).logits.shape[1] == 257


def test_a_reward_model_that_reads_texts_in_other_tokens_says_which_are_too_long():
    template = Template(byte_tokenizer())
    scorer = RewardScorer(tiny_causal_lm("gpt2"), template, template, 0.0, 1.0)
    asked = [[Message("user", "why?")]]
    room = 256 - len(template.encode_prompt(asked[0])) - len(template.encode_response(""))
    assert scorer.encode(asked, ["x" * room])[0].shape == (1, 256)
    with pytest.raises(UserError, match="257 tokens long to the reward model, which sees 256"):
        scorer.encode(asked, ["x" * (room + 1)])
