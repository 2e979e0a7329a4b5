"""Weights, and splits that no prompt crosses."""

from collections import Counter

import pytest

from common.data.blending import blend, split_by_prompt
from common.data.records import Message, Prompt
from common.errors import UserError


def prompts(texts):
    return [Prompt((Message("user", t),), f"file:{i}") for i, t in enumerate(texts)]


MANY = prompts([f"prompt {i}" for i in range(400)])


def test_whole_weights_repeat_and_a_half_is_a_half():
    a, b, c = range(0, 10), range(100, 140), range(200, 220)
    counts = Counter(blend([a, b, c], [2.0, 0.5, 1.5], seed=0))
    assert [counts[i] for i in a] == [2] * 10
    assert Counter(counts[i] for i in b) == {0: 20, 1: 20}
    assert Counter(counts[i] for i in c) == {1: 10, 2: 10}


def test_a_small_set_comes_up_as_often_as_its_weight_says_over_seeds():
    total = sum(len(blend([["x"], ["y"]], [0.3, 1.0], seed=seed)) - 1 for seed in range(1000))
    assert 240 < total < 360  # 300 expected, deviation 14.5


def test_the_seed_gives_the_order_and_the_half():
    first = blend([range(50), range(50, 100)], [1.0, 0.5], seed=1)
    assert first == blend([range(50), range(50, 100)], [1.0, 0.5], seed=1)
    other = blend([range(50), range(50, 100)], [1.0, 0.5], seed=2)
    assert set(first) != set(other)
    assert [i for i in first if i < 50] != sorted(i for i in first if i < 50)


def test_a_blend_of_nothing_is_an_error():
    with pytest.raises(UserError, match="no example"):
        blend([[], []], [1.0, 1.0], seed=0)


def test_sides_share_no_prompt_and_keep_the_order():
    items = prompts([f"prompt {i % 100}" + " " * (i // 100) for i in range(300)])
    train, held_out = split_by_prompt(items, fraction=0.3, seed=0)
    assert not {i.prompt_key for i in train} & {i.prompt_key for i in held_out}
    assert sorted(train + held_out, key=items.index) == items
    for side in (train, held_out):
        assert side == sorted(side, key=items.index)
    assert len(held_out) % 3 == 0  # each prompt goes with its three copies


def test_the_fraction_is_met_in_expectation_and_the_seed_matters():
    splits = [split_by_prompt(MANY, fraction=0.25, seed=seed)[1] for seed in range(20)]
    assert 1800 < sum(map(len, splits)) < 2200  # 2000 expected, deviation 39
    assert splits[0] != splits[1]
    assert splits[0] == split_by_prompt(MANY, fraction=0.25, seed=0)[1]


def test_adding_and_reordering_moves_no_prompt():
    _, held_out = split_by_prompt(MANY[:200], fraction=0.25, seed=4)
    _, more = split_by_prompt(MANY[::-1], fraction=0.25, seed=4)
    old = {p.prompt_key for p in MANY[:200]}
    assert {p.prompt_key for p in more} & old == {p.prompt_key for p in held_out}


def test_a_count_counts_prompts():
    items = MANY[:50] + MANY[:50]
    train, held_out = split_by_prompt(items, count=7, seed=0)
    assert len({i.prompt_key for i in held_out}) == 7
    assert (len(train), len(held_out)) == (86, 14)


@pytest.mark.parametrize("fraction", [1e-9, 1 - 1e-9])
@pytest.mark.parametrize("number", [2, 3])
def test_neither_side_is_empty(fraction, number):
    train, held_out = split_by_prompt(MANY[:number], fraction=fraction, seed=0)
    assert train and held_out


@pytest.mark.parametrize(
    ("items", "options", "words"),
    [
        (prompts(["a", "A "]), {"fraction": 0.5}, "at least two different prompts.*has 1"),
        (MANY, {"fraction": 1.0}, "between 0 and 1"),
        (MANY[:5], {"count": 5}, "cannot hold out 5 prompts.*has 5"),
        (MANY[:5], {"count": 0}, "cannot hold out 0"),
    ],
)
def test_an_impossible_split_is_explained(items, options, words):
    with pytest.raises(UserError, match=words):
        split_by_prompt(items, seed=0, **options)
