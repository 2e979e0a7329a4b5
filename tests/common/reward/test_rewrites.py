"""Rewritten responses: what the model reads, and what shifts and flips are."""

import numpy as np
import pytest
import torch

import common.reward.rewrites as rewrites
from common.config.arguments import TextArguments
from common.data.encoding import Comparison, encode_pairs
from common.data.records import Message, Pair
from common.data.template import Template
from common.reward.rewrites import REWRITES, rewrite_shifts, rewritten, shift_facts
from common.reward.training import PairObjective, RewardArguments
from tests.models import byte_tokenizer


@pytest.fixture(scope="module")
def template():
    return Template(byte_tokenizer())


def comparisons_of(template, text, count=12):
    pairs = [
        Pair((Message("user", f"question {k}"),), "x" * (20 - k), "y" * (3 + k), 1.0, f"f:{k}")
        for k in range(count)
    ]
    return encode_pairs(pairs, template, text, always_ends=True)[0]


@pytest.mark.parametrize("name", REWRITES)
def test_a_rewrite_keeps_the_prompt_and_ends_with_the_end_token(template, name):
    text = TextArguments(max_prompt_tokens=200, max_response_tokens=100)
    (comparison,) = comparisons_of(template, text, 1)
    found = rewritten(comparison, REWRITES[name], template, text)
    for i, (response, end) in enumerate((("x" * 20, " \n\n"), ("y" * 3, " \n\n"))):
        end = end if name.startswith("white") else " I hope this helps."
        prompt = template.encode_prompt([Message("user", "question 0")])
        assert found.rows[i] == prompt + template.encode_response(response + end)
    assert found.pairs == comparison.pairs


def test_what_is_cut_off_anyway_is_not_seen(template):
    """Of responses that fill the limit, the model reads the same as before."""
    text = TextArguments(max_prompt_tokens=200, max_response_tokens=10)
    before = comparisons_of(template, text, 12)
    after = [rewritten(c, REWRITES["a closing sentence"], template, text) for c in before]
    scores = [[1.0, 0.0]] * 12
    found = shift_facts(before, after, scores, scores, deviation=1.0)
    # x is 20 to 9 bytes and an end token, y 3 to 14: one x of 9 just fits and is not changed.
    seen = sum(b.rows[i] != a.rows[i] for b, a in zip(before, after, strict=True) for i in (0, 1))
    assert found["responses"] == seen and found["unseen"] == 24 - seen
    assert 0 < seen < 12


def test_shifts_and_flips_are_loops():
    draw = np.random.default_rng(0)
    pairs = [(0, 1), (0, 2), (1, 2)]
    record = Pair((Message("user", "q"),), "a", "b", 1.0, "f")
    before, after, scores, moved = [], [], [], []
    for _ in range(15):
        rows = [[1, 2], [1, 3], [1, 4]]
        names = [Pair(record.messages, "abc"[i], "abc"[j], 1.0, "f") for i, j in pairs]
        before.append(Comparison(rows, pairs, names, 1))
        changed = [[*rows[0], 9], [*rows[1], 9], rows[2]]  # the third is read as before
        after.append(Comparison(changed, pairs, names, 1))
        scores.append(draw.normal(size=3).tolist())
        moved.append((np.array(scores[-1]) + draw.normal(0.3, 1, size=3)).tolist())
    shifts, flips = [], []
    for was, now in zip(scores, moved, strict=True):
        for i in (0, 1):
            shifts.append((now[i] - was[i]) / 2.0)
        for i, j in pairs:
            flips.append((now[i] > was[j]) != (was[i] > was[j]))
            if j != 2:
                flips.append((was[i] > now[j]) != (was[i] > was[j]))
    found = shift_facts(before, after, scores, moved, deviation=2.0)
    assert found["shift"] == pytest.approx(sum(shifts) / 30)
    assert found["size"] == pytest.approx(sum(map(abs, shifts)) / 30)
    assert found["flips"] == pytest.approx(sum(flips) / len(flips)) and 0.1 < found["flips"] < 0.9
    assert (found["responses"], found["unseen"]) == (30, 15)
    assert found["ci95"][0] < found["shift"] < found["ci95"][1]
    still = shift_facts(before, before, scores, scores, deviation=2.0)
    assert still == {"shift": None, "size": None, "flips": None, "responses": 0, "unseen": 45}


def test_only_an_order_that_the_other_response_wins_is_turned():
    names = [Pair((Message("user", "q"),), "a", "b", 1.0, "f")]
    before = [Comparison([[1, 2], [1, 3]], [(0, 1)], names, 1)] * 12
    after = [Comparison([[1, 2, 9], [1, 3, 9]], [(0, 1)], names, 1)] * 12
    for was, now, turned in (
        ([1.0, 0.0], [0.5, 0.5], 0.0),  # closer
        ([1.0, 0.0], [0.0, 1.0], 0.0),  # level with what the other one had
        ([1.0, 0.0], [-1.0, 0.0], 0.5),
        ([0.0, 1.0], [2.0, -2.0], 1.0),
        ([1.0, 1.0], [5.0, -5.0], 0.0),  # there was no order
    ):
        found = shift_facts(before, after, [was] * 12, [now] * 12, deviation=1.0)
        assert found["flips"] == turned


def test_of_many_prompts_those_rewritten_are_spread_over_all_of_them(template, monkeypatch):
    monkeypatch.setattr(rewrites, "PROMPTS", 4)
    seen = []
    monkeypatch.setattr(rewrites, "with_rows", lambda _, chosen: seen.append(chosen))
    monkeypatch.setattr(
        rewrites, "response_scores", lambda engine, objective, size: [[0.0, 0.0]] * len(seen[-1])
    )
    text = TextArguments(max_prompt_tokens=200, max_response_tokens=100)
    for count, numbers in ((12, [0, 3, 6, 9]), (6, [0, 1, 3, 4]), (4, [0, 1, 2, 3]), (2, [0, 1])):
        given = PairObjective(
            comparisons_of(template, text, count), 0, RewardArguments(), share_prompts=False
        )
        rewrite_shifts(None, given, template, text, 5, 1.0)
        (first, *_), seen[:] = list(seen), []
        assert [c.records[0].origin for c in first] == [f"f:{n}" for n in numbers]


class BytesModel(torch.nn.Module):
    """Scores a row by how many tokens it has: any added text moves it up."""

    def forward(self, ids, mask, positions=None):
        return (mask.cumsum(dim=1) / 10.0).float()


def test_a_model_that_likes_length_is_caught(template):
    text = TextArguments(max_prompt_tokens=200, max_response_tokens=100)
    objective = PairObjective(
        comparisons_of(template, text), 0, RewardArguments(), share_prompts=False
    )
    engine = BytesModel()
    found = rewrite_shifts(engine, objective, template, text, batch_size=5, deviation=0.5)
    added = {"white space at the end": 3, "a closing sentence": 19}
    for name, count in added.items():
        assert found[name]["shift"] == pytest.approx(count / 10 / 0.5, rel=1e-4)
        assert found[name]["responses"] == 24
    # x leads y by 17 bytes, then by 15, …, at last it trails by 5.
    leads = [17 - 2 * k for k in range(12)]
    flips = [(lead > 0) != (lead + s * 19 > 0) for lead in leads for s in (1, -1)]
    assert found["a closing sentence"]["flips"] == pytest.approx(sum(flips) / 24)
    assert found["white space at the end"]["flips"] < 0.3
