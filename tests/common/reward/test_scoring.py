"""Scores of rollouts: by their ids where the tokens are the same, by their text where not."""

import copy

import pytest
import torch

from common.config.arguments import ModelArguments
from common.data.records import Message
from common.data.template import Template
from common.hybrid_engine.rollout import Rollout
from common.models.loading import load_tokenizer, separate_pad
from common.models.scalar import load_scalar_model
from common.reward.scoring import RewardScorer
from tests.models import byte_tokenizer, save_tiny

PROMPTS = [[Message("user", "May it run?")], [Message("user", "Hi")], [Message("user", "Why?")]]
RESPONSES = ["Yes.", "No, it promises a cure.", "Because"]


def rollout_of(template, ended=(True, True, True)):
    """Prompts padded left, responses right, with the actor's pad token."""
    pad = template.tokenizer.pad_token_id
    prompts = [template.encode_prompt(p) for p in PROMPTS]
    responses = [template.encode_response(r) for r in RESPONSES]
    responses = [r if e else r[:-1] for r, e in zip(responses, ended, strict=True)]
    left, right = max(map(len, prompts)), max(map(len, responses))
    ids, mask = [], []
    for prompt, response in zip(prompts, responses, strict=True):
        before, after = left - len(prompt), right - len(response)
        ids.append([pad] * before + prompt + response + [pad] * after)
        mask.append([False] * before + [True] * (len(prompt) + len(response)) + [False] * after)
    unused = torch.zeros(len(ids), right)
    return Rollout(torch.tensor(ids), torch.tensor(mask), right, torch.tensor(ended), unused)


def score_by_hand(model, ids):
    """The head's output at the last of these ids, from a forward over them alone."""
    with torch.no_grad():
        hidden = model.inner.base_model(input_ids=torch.tensor([ids])).last_hidden_state
        return float(model.inner.score(hidden)[0, -1, 0])


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def reward(request, tmp_path_factory):
    """A reward model whose base pads with its end token; its tokenizer has one token more."""
    folder = str(save_tiny(tmp_path_factory.mktemp("m") / request.param, request.param, pad="</s>"))
    tokenizer = separate_pad(load_tokenizer(folder))
    model = load_scalar_model(
        folder, "reward", ModelArguments(), new_head=True, tokenizer=tokenizer
    )
    return model.eval(), tokenizer


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_ids_are_scored_as_they_are_also_with_a_pad_token_of_their_own(reward, batch_size):
    """A truncated response keeps its state: decoding it would make it a finished one."""
    model, tokenizer = reward
    policy = Template(byte_tokenizer(pad="</s>"))
    scorer = RewardScorer(model, Template(tokenizer), policy, 0.0, 1.0)
    assert scorer.same_tokens
    ended = (True, False, True)
    found = scorer.score_rollout(rollout_of(policy, ended), PROMPTS, batch_size)
    for score, prompt, response, end in zip(found, PROMPTS, RESPONSES, ended, strict=True):
        ids = policy.encode_prompt(prompt) + policy.encode_response(response)
        assert float(score) == pytest.approx(
            score_by_hand(model, ids if end else ids[:-1]), abs=1e-4
        )
    assert found.std() > 0.1


def test_another_tokenizer_reads_the_text(reward, tmp_path):
    model, tokenizer = reward
    other = byte_tokenizer()
    other.add_tokens(["promises"])  # the actor's alone: ids of its responses mean nothing here
    policy = Template(other)
    scorer = RewardScorer(model, Template(tokenizer), policy, 0.0, 1.0)
    assert not scorer.same_tokens
    rollout = rollout_of(policy)
    assert 259 in rollout.input_ids
    found = scorer.score_rollout(rollout, PROMPTS, batch_size=2)
    template = Template(tokenizer)
    for score, prompt, response in zip(found, PROMPTS, RESPONSES, strict=True):
        ids = template.encode_prompt(prompt) + template.encode_response(response)
        assert float(score) == pytest.approx(score_by_hand(model, ids), abs=1e-4)


def test_another_end_token_is_another_tokenizer(reward):
    model, tokenizer = reward
    other = byte_tokenizer()
    other.eos_token = "<s>"
    assert not RewardScorer(model, Template(tokenizer), Template(other), 0.0, 1.0).same_tokens


def test_with_another_chat_template_the_text_is_read_in_the_reward_models_own(reward):
    model, tokenizer = reward
    written = (
        "{% for m in messages %}@{{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}@@{% endif %}"
    )
    templates = []
    for known, mark in ((tokenizer, "#"), (byte_tokenizer(pad="</s>"), "@")):
        known = copy.deepcopy(known)
        known.chat_template = written.replace("@", mark)
        templates.append(Template(known, "chat"))
    own, policy = templates
    assert RewardScorer(model, own, own, 0.0, 1.0).same_tokens
    scorer = RewardScorer(model, own, policy, 0.0, 1.0)
    found = scorer.score_rollout(rollout_of(policy), PROMPTS, batch_size=3)
    for score, (prompt,), response in zip(found, PROMPTS, RESPONSES, strict=True):
        text = f"#{prompt.content}</s>##{response}</s>"
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert float(score) == pytest.approx(score_by_hand(model, ids), abs=1e-4)
