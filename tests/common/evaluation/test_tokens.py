"""Scores of tokens against models called by hand and PPO's equations written out in loops."""

import json

import pytest
import torch
import yaml

from common.config.arguments import ModelArguments, ZeroArguments
from common.data.encoding import EncodedPrompt
from common.data.records import Message, Prompt
from common.data.template import Template
from common.evaluation.tokens import (
    TokenScorer,
    TrainingFacts,
    read_training,
    token_advantages,
    token_row,
    token_texts,
    wanted,
)
from common.models.scalar import load_scalar_model
from common.reward.places import RewardPlace
from tests.models import byte_tokenizer, save_tiny, tiny_causal_lm

RESPONSES = [[72, 105, 33, 2], [80], [75, 2], [90, 91, 92, 93, 94, 95, 2]]
PROMPTS = [[1, 40, 41], [1, 50, 51, 52, 53, 54], [1, 60], [1, 70, 71]]


def facts(**changes):
    values = {"gamma": 0.9, "lam": 0.8, "kl_coefficient": 0.1, "score_clip": 3.0}
    values |= {"no_end_score": -3.0, "length_penalty": 0.0, "repeat_penalty": 0.0}
    values |= {"repeat_size": 2, "temperature": 1.0, "reward": RewardPlace("x")}
    return TrainingFacts(**values | changes)


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    """SFT, actor and critic of a few thousand weights on the disk."""
    root = tmp_path_factory.mktemp("models")
    save_tiny(root / "sft", "llama", seed=1)
    save_tiny(root / "actor", "llama", seed=2)
    critic = load_scalar_model(str(root / "sft"), "critic", ModelArguments(), new_head=True)
    torch.manual_seed(0)
    torch.nn.init.normal_(critic.head.weight)
    critic.save_pretrained(root / "critic")
    byte_tokenizer().save_pretrained(root / "critic")
    paths = {"sft": root / "sft", "rlhf": root / "actor", "values": root / "critic"}
    zero = ZeroArguments("0")
    return TokenScorer({n: str(p) for n, p in paths.items()}, ModelArguments(), zero, 3, 0.7)


@pytest.fixture
def rows():
    return [{"split": "a", "index": i, "ids": ids} for i, ids in enumerate(RESPONSES)]


def score(scorer, name, rows):
    prompts = [EncodedPrompt(ids, Prompt((Message("user", "x"),), "f:1")) for ids in PROMPTS]
    return scorer(name, rows, {"a": prompts}, pad_id=0)


@pytest.mark.parametrize(("name", "seed"), [("sft", 1), ("rlhf", 2)])
def test_logprobs_are_those_of_the_model_called_alone(scorer, rows, name, seed):
    found = score(scorer, name, rows)
    model = tiny_causal_lm("llama", seed=seed)
    assert [len(row) for row in found] == [4, 1, 2, 7]
    for prompt, response, own in zip(PROMPTS, RESPONSES, found, strict=True):
        logits = model(torch.tensor([prompt + response])).logits[0].double() / 0.7
        for t, token in enumerate(response):
            at = logits[len(prompt) + t - 1]
            expected = float((at[token] - at.exp().sum().log()).detach())
            assert own[t] == pytest.approx(expected, abs=2e-4)


def test_values_are_read_before_each_token(scorer, rows):
    found = score(scorer, "values", rows)
    critic = load_scalar_model(scorer.paths["values"], "critic", ModelArguments(), new_head=False)
    for prompt, response, own in zip(PROMPTS, RESPONSES, found, strict=True):
        ids = torch.tensor([prompt + response])
        with torch.no_grad():
            hidden = critic.inner.base_model(input_ids=ids).last_hidden_state[0]
            every = critic.head(hidden)[:, 0].tolist()
        expected = every[len(prompt) - 1 : len(prompt) + len(response) - 1]
        assert own == pytest.approx(expected, abs=2e-4)
    assert len({x for row in found for x in row}) > 5


def test_no_rows_are_no_scores(scorer):
    assert score(scorer, "sft", []) == []


def by_hand(ids, logprobs, ref, values, raw, ended, f, mean, std):
    """Equations 1 and 2 and the rewards of the paper, in loops."""
    length = len(ids)
    place = f.reward
    s = place.weight * (raw - mean) / std
    s = min(max(s, -f.score_clip), f.score_clip) if ended else f.no_end_score
    s -= f.length_penalty * length
    grams = [tuple(ids[i : i + f.repeat_size]) for i in range(length - f.repeat_size + 1)]
    repeated = sum(gram in grams[:i] for i, gram in enumerate(grams))
    s -= f.repeat_penalty * (repeated / len(grams) if grams else 0.0)
    rewards = [-f.kl_coefficient * (a - b) for a, b in zip(logprobs, ref, strict=True)]
    rewards[-1] += s
    after = [*values[1:], 0.0]
    deltas = [r + f.gamma * n - v for r, n, v in zip(rewards, after, values, strict=True)]
    return [
        sum((f.gamma * f.lam) ** (k - t) * deltas[k] for k in range(t, length))
        for t in range(length)
    ]


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gamma": 1.0, "lam": 0.95, "score_clip": 0.5},
        {"length_penalty": 0.05, "repeat_penalty": 2.0, "reward": RewardPlace("x", weight=-2.0)},
        {"reward": RewardPlace("x", mean=1.0, std=4.0)},
    ],
)
def test_advantages_are_those_of_the_equations(ended, changes):
    f = facts(**changes)
    ids = [5, 6, 5, 6, 5, 2]
    logprobs, ref = [-0.1, -2.0, -0.3, -1.5, -0.2, -0.9], [-0.4, -1.0, -0.1, -2.5, -0.2, -1.1]
    values = [0.3, -0.2, 0.5, 0.8, -0.4, 0.6]
    place = f.reward
    scale = (0.4, 2.0)
    given = scale if place.mean is None else (place.mean, place.std)
    found = token_advantages(ids, logprobs, ref, values, 1.7, ended, f, scale)
    expected = by_hand(ids, logprobs, ref, values, 1.7, ended, f, *given)
    assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("text", ["", "plain", " née Ω 广告 👩‍👩‍👧 end ", "a\n\tb"])
def test_texts_of_tokens_joined_are_the_text(text):
    tokenizer = byte_tokenizer()
    ids = [*tokenizer.encode(text, add_special_tokens=False), 2]
    found = token_texts(lambda part: tokenizer.decode(part, skip_special_tokens=True), ids)
    assert len(found) == len(ids) and "".join(found) == text and found[-1] == ""
    assert "\ufffd" not in "".join(found)


def test_half_a_character_at_the_end_is_shown_as_one_that_is_lost():
    tokenizer = byte_tokenizer()
    ids = tokenizer.encode("a广", add_special_tokens=False)[:-1]
    found = token_texts(tokenizer.decode, ids)
    assert found[0] == "a" and "".join(found).startswith("a\ufffd")


def test_a_row_says_which_answer_it_is_and_has_advantages_where_all_is_known():
    row = {"split": "a", "index": 3, "model": "rlhf", "decoding": "sample", "sample": 0}
    row |= {"ids": [72, 105, 2], "reward": 1.0, "ended": True, "response": "Ei"}
    scores = {"sft": [-1.0] * 3, "rlhf": [-0.5] * 3, "values": [0.0] * 3}
    template = Template(byte_tokenizer())
    made = token_row(row, scores, template, facts(), (0.0, 1.0))
    assert (made["split"], made["index"], made["model"], made["sample"]) == ("a", 3, "rlhf", 0)
    assert len(made["tokens"]) == len(made["advantages"]) == 3
    assert made["advantages"][-1] == pytest.approx(1.0 - 0.1 * 0.5)
    several = facts(reward=None)
    for training, scale in ((several, (0.0, 1.0)), (None, (0.0, 1.0)), (facts(), None)):
        assert "advantages" not in token_row(row, scores, template, training, scale)
    given = facts(reward=RewardPlace("x", mean=0.5, std=0.25))  # of a model that does not say it
    made = token_row(row, scores, template, given, None)
    assert made["advantages"][-1] == pytest.approx((1.0 - 0.5) / 0.25 - 0.1 * 0.5)
    without = token_row(row, {k: scores[k] for k in ("sft", "rlhf")}, template, facts(), (0.0, 1.0))
    assert "values" not in without and "advantages" not in without


def test_which_answers_are_scored():
    row = {"model": "sft", "sample": 0, "index": 1}
    assert wanted(row, 2) and not wanted(row, 1)
    assert not wanted(row | {"sample": 1}, 2) and not wanted(row | {"model": "dpo"}, 2)


def test_what_ppo_was_set_to_comes_from_its_run(tmp_path):
    sft, reward = (str(tmp_path / "models" / name) for name in ("sft", "reward"))

    def read(sft=sft, reward=reward):
        return read_training(tmp_path, sft, reward)

    assert read() is None
    settings = {n: getattr(facts(), n) for n in TrainingFacts.__dataclass_fields__ if n != "reward"}
    settings |= {"actor": "", "score_scaling": "reference"}
    (tmp_path / "rlhf").mkdir()
    config = tmp_path / "rlhf" / "config.yaml"
    config.write_text(yaml.safe_dump(settings | {"reward": [], "kl_coefficient": 0.3}))
    assert read().kl_coefficient == 0.3 and read().reward.path == reward
    assert read(sft=f"{tmp_path}/models/../models/sft/").reward.path == reward
    assert read(sft="other").reward is None and read(reward="other").reward is None
    lines = [json.dumps({"step": 1, "kl/coefficient": 0.2}), '{"step": 2, "kl/coeff']
    metrics = tmp_path / "rlhf" / "metrics.jsonl"
    metrics.write_text("\n".join(lines))
    assert read().kl_coefficient == 0.2
    metrics.write_bytes(f"{lines[0]}\n".encode() + b'{"step": 2, "kl/coefficient": NaN}\n\xff\xfe')
    assert read().kl_coefficient == 0.2
    metrics.write_text('{"step": 1, "kl/coefficient": 0.0}')
    assert read().kl_coefficient == 0.0
    for changes in (
        {"reward": [reward, '{"path": "b", "weight": 2}']},
        {"reward": ["python:rule.py:short"]},
        {"reward": [], "score_scaling": "running"},
        {"reward": [], "actor": "elsewhere"},
    ):
        config.write_text(yaml.safe_dump(settings | changes))
        assert read().reward is None
    for damaged in (b"gamma: 1.0\n", b"\xff\xfe", b""):
        config.write_bytes(damaged)
        assert read() is None
