"""Pairs against an enumeration of the convention, and the account of what became none."""

import json
import random
import subprocess
import sys
from collections import Counter
from fractions import Fraction

import pytest

from common.data.pairs import PairArguments, make_pairs, support
from common.data.records import Message, PairNumbers, Ranking
from common.errors import UserError

PROMPT = (Message("user", "q"),)
NOTHING = {"rankings": 0, "responses": 0, "pairs": 0}


def ranking(ranks, responses=None, prompt="q", **more):
    responses = responses or [f"response {i}" for i in range(len(ranks[0]))]
    return Ranking(
        (Message("user", prompt),),
        tuple(responses),
        tuple(map(tuple, ranks)),
        "file:7",
        {"k": 1},
        **more,
    )


USABLE = ranking([(1, 2)], prompt="another")
"""Beside rankings that give no pair, as there must be some pair."""


def paired(*rankings, seed=0, **settings):
    """The pairs of the rankings, and the account of it."""
    return make_pairs(rankings, PairArguments(**settings), seed=seed)


def indices(ranking, pairs):
    return [(ranking.responses.index(p.chosen), ranking.responses.index(p.rejected)) for p in pairs]


@pytest.mark.parametrize("seed", range(40))
def test_without_ties_pairs_are_those_of_the_convention(seed):
    draw = random.Random(seed)
    count, top, bottom = draw.randint(2, 7), draw.randint(1, 3), draw.randint(1, 3)
    ranks = list(range(1, count + 1))
    draw.shuffle(ranks)
    example = ranking([ranks])
    # i among the `top` best, j among the `bottom` worst, i strictly better: by rank alone.
    expected = {
        (i, j)
        for i in range(count)
        for j in range(count)
        if ranks[i] <= top and ranks[j] > count - bottom and ranks[i] < ranks[j]
    }
    pairs, account = paired(example, USABLE, top=top, bottom=bottom)
    pairs = [pair for pair in pairs if pair.messages == PROMPT]
    found = indices(example, pairs)
    assert set(found) == expected and len(found) == len(expected)
    assert not account.dropped
    for (i, j), pair in zip(found, pairs, strict=True):
        assert pair.gap == ranks[j] - ranks[i]
        assert (pair.origin, pair.facts, pair.messages) == ("file:7", {"k": 1}, PROMPT)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("choice", ["all", "best_worst"])
def test_every_two_or_the_best_against_the_worst(seed, choice):
    draw = random.Random(seed)
    count = draw.randint(2, 7)
    ranks = draw.sample(range(1, count + 1), count)
    example = ranking([ranks])
    every = {(i, j) for i in range(count) for j in range(count) if ranks[i] < ranks[j]}
    extreme = {(ranks.index(1), ranks.index(count))}
    pairs, account = paired(example, choice=choice)
    found = indices(example, pairs)
    assert len(found) == len(set(found))
    assert set(found) == (every if choice == "all" else extreme)
    assert account.found.pairs == account.kept.pairs == len(found)


@pytest.mark.parametrize("seed", range(60))
def test_with_ties_any_draw_keeps_to_the_convention(seed):
    draw = random.Random(seed)
    count = draw.randint(2, 6)
    labelers = [[draw.randint(1, 3) for _ in range(count)] for _ in range(3)]
    # Ranks as they are after ties: each labeler's values, by the mean of their places.
    labelers = [
        [(sum(v < x for v in row) + sum(v <= x for v in row) + 1) / 2 for x in row]
        for row in labelers
    ]
    example = ranking(labelers)
    means = [Fraction(sum(column)) / 3 for column in zip(*labelers, strict=True)]
    pairs, account = paired(example, USABLE, seed=seed)
    found = indices(example, [pair for pair in pairs if pair.messages == PROMPT])
    assert len(set(found)) == len(found)
    second, last_but_one = sorted(means)[1], sorted(means)[-2]
    for i, j in found:
        assert means[i] < means[j]
        assert means[i] <= second and means[j] >= last_but_one
    # How many candidates there are depends on the number of responses only.
    tied = account.dropped["tied"].pairs if account.dropped else 0
    assert len(found) + tied == {2: 1, 3: 3}.get(count, 4)
    assert set(account.dropped) <= {"tied"}
    if min(means) == max(means):
        assert not found


def test_three_responses_give_three_pairs_and_two_give_one():
    example = ranking([(2, 3, 1)])
    assert indices(example, paired(example)[0]) == [(2, 0), (2, 1), (0, 1)]
    example = ranking([(2, 1)])
    assert indices(example, paired(example)[0]) == [(1, 0)]


def test_ties_at_the_border_are_drawn_by_seed_and_prompt_evenly():
    # One best, four equal: which of them is second, and which two are last, is drawn.
    def second(seed, prompt):
        example = ranking([(1, 3.5, 3.5, 3.5, 3.5)], prompt=prompt)
        pairs, account = paired(example, seed=seed)
        assert account.dropped == {"tied": (0, 0, 2)}
        return frozenset(j for _, j in indices(example, pairs))

    by_seed = Counter(second(seed, "q") for seed in range(600))
    by_prompt = Counter(second(0, f"q{i}") for i in range(600))
    for counts in (by_seed, by_prompt):
        assert len(counts) == 6  # every two of the four
        assert min(counts.values()) > 60  # 100 expected, deviation 9
    assert second(5, "q") == second(5, "q")


def test_the_draw_does_not_depend_on_the_order_in_the_file():
    texts = ["a", "b", "c", "d", "e"]
    pairs, _ = paired(ranking([(3, 3, 3, 5, 1)], texts), seed=3)
    turned, _ = paired(ranking([(1, 5, 3, 3, 3)], texts[::-1]), seed=3)
    assert {(p.chosen, p.rejected) for p in pairs} == {(p.chosen, p.rejected) for p in turned}


def test_the_draw_is_the_same_in_a_process_with_another_hash_seed():
    code = (
        "from common.data.pairs import *; from common.data.records import *;"
        "r = Ranking((Message('user', 'q'),), tuple('abcdef'), ((3.5,) * 5 + (6,),), 'o');"
        "print([p.chosen for p in make_pairs([r], PairArguments(), seed=1)[0]])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": str(h), "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for h in (1, 2)
    }
    assert len(outputs) == 1 and "['" in outputs.pop()


def test_empty_and_identical_responses_make_no_pair_and_are_counted():
    example = ranking([(1, 2, 3, 4)], ["x", "y", " ", "x\n"])
    pairs, account = paired(example)
    assert [(p.chosen, p.rejected) for p in pairs] == [("x", "y")]
    # Four responses would give four pairs, three without the empty one three, and two give one.
    assert account.dropped == {"empty": (0, 1, 1), "identical": (0, 1, 2)}


def test_pairs_of_every_ranking_in_order_and_a_refusal_where_there_are_none():
    tied = ranking([(1.5, 1.5)])
    pairs, account = paired(ranking([(1, 2)]), tied, ranking([(2, 1)]))
    assert [p.chosen for p in pairs] == ["response 0", "response 1"]
    assert account.dropped == {"tied": (1, 2, 1)}
    with pytest.raises(UserError, match="no pair is left of 1 rankings\n(?s:.)*- tied"):
        paired(tied)


# Several labelers

SPLIT = [(1, 2, 3, 4), (1, 2, 3, 4), (3, 4, 1, 2)]
"""Rank sums 5, 8, 7, 10 around 7.5: S = 13, W = 12·13/(9·60) = 13/45."""


def test_a_pair_says_how_far_its_labelers_agree_and_how_many_back_it():
    pairs, account = paired(ranking(SPLIT), ranking([(1, 2)]), choice="all")
    votes = {(0, 1): 1, (0, 2): 2 / 3, (0, 3): 2 / 3, (1, 3): 2 / 3, (2, 1): 1 / 3, (2, 3): 1}
    found = {
        ij: p.support for ij, p in zip(indices(ranking(SPLIT), pairs), pairs[:-1], strict=False)
    }
    assert found == pytest.approx(votes)
    assert [p.agreement for p in pairs] == [pytest.approx(13 / 45)] * 6 + [None]
    assert pairs[-1].support == 1
    assert account.as_dict()["agreement"] == {
        "measured": 1,
        "mean_kendalls_w": pytest.approx(13 / 45),
        "down_weighted": 0,
    }


def test_support_counts_ties_half_and_only_those_who_ranked_both():
    rows = [(1, 2, None), (1.5, 1.5, 3), (None, 1, 2), (2, 1, 3)]
    assert support(rows, 0, 1) == pytest.approx(0.5)  # one for, one level, one against
    assert support(rows, 1, 2) == 1
    assert support([(1, None, 2), (None, 1, 2)], 0, 1) is None


def test_agreement_is_on_what_can_be_compared():
    """Not on an empty response, which everybody puts last."""
    rows = [(1, 2, 3), (1.5, 1.5, 3)]
    pairs, account = paired(ranking(rows, ["good", "bad", " "]), USABLE, min_agreement=0.9)
    assert len(pairs) == 1 and "low agreement" in account.dropped
    pairs, account = paired(ranking(rows), min_agreement=0.9)
    assert not account.dropped and pairs[0].agreement == pytest.approx(13 / 14)


def test_below_the_threshold_a_prompt_is_dropped_or_its_pairs_weighted():
    low, high, alone = ranking(SPLIT), ranking([(1, 2)] * 2, prompt="b"), ranking([(1, 2)])
    never = ranking([(1, 2), (2, 1)], prompt="c")
    kept, account = paired(low, high, alone, never, min_agreement=0.5)
    assert [p.weight for p in kept] == [1, 1]
    assert account.dropped == {"low agreement": (2, 4 + 2, 4 + 1)}
    kept, account = paired(low, high, alone, never, min_agreement=0.5, weight_by_agreement=True)
    assert [p.weight for p in kept] == [pytest.approx(13 / 45 / 0.5)] * 4 + [1, 1]
    # Of those who do not agree at all nothing is left to weight.
    assert account.dropped == {"low agreement": (1, 2, 1)}
    assert (account.seen["low agreement"], account.down_weighted) == (2, 1)
    kept, account = paired(low, high, alone, min_agreement=13 / 45 - 1e-9)
    assert {p.weight for p in kept} == {1} and not account.dropped


@pytest.mark.parametrize("aggregation", ["mean", "borda", "bradley_terry"])
def test_the_gap_is_in_places_whatever_the_aggregation(aggregation):
    pairs, _ = paired(ranking([(1, 2, 3, 4)] * 3), aggregation=aggregation, choice="best_worst")
    (pair,) = pairs
    assert (pair.chosen, pair.rejected) == ("response 0", "response 3")
    # Certain only in the limit, Bradley-Terry stays a little below the three places.
    assert 2.9 < pair.gap <= 3


def test_incomplete_rankings_are_aggregated_as_was_asked_for():
    def between_first_two(rows, aggregation):
        example = ranking(rows)
        found = indices(example, paired(example, aggregation=aggregation, choice="all")[0])
        return [pair for pair in found if set(pair) == {0, 1}]

    # One labeler puts 0 first of four, another puts 1 first of two. The places that they stand for
    # favour 1; of its comparisons either won three of four.
    rows = [(1, 2, 3, 4), (2, 1, None, None)]
    assert between_first_two(rows, "mean") == [(1, 0)]
    assert between_first_two(rows, "borda") == []
    # Either won one of two, 0 against the strong 2 and 1 against the weak 3.
    rows = [(1, None, 2, None), (2, None, 1, None), (None, 1, None, 2), (None, 2, None, 1)]
    rows += [(None, None, 1, 2)] * 5
    assert between_first_two(rows, "borda") == []
    assert between_first_two(rows, "bradley_terry") == [(0, 1)]


def test_a_margin_from_the_gap_is_so_much_for_each_place():
    example = ranking([(1, 2, 3), (1, 3, 2)])
    pairs, _ = paired(example, margin_from_gap=0.5, choice="all")
    assert [(p.gap, p.margin) for p in pairs] == [(1.5, 0.75), (1.5, 0.75)]
    assert {p.margin for p in paired(example)[0]} == {None}


def test_what_a_file_of_pairs_says_of_a_pair_holds_beside_the_settings():
    given = PairNumbers(gap=2.5, weight=0.5, margin=0.25, agreement=0.3, support=0.75)
    plain = ranking([(1, 2)], numbers=PairNumbers(weight=2.0))
    weights = {"min_agreement": 0.6, "weight_by_agreement": True, "margin_from_gap": 2.0}
    pairs, _ = paired(ranking([(1, 2)], numbers=given), plain, **weights)
    assert [PairNumbers(*(getattr(p, name) for name in PairNumbers._fields)) for p in pairs] == [
        PairNumbers(gap=2.5, weight=0.25, margin=0.25, agreement=0.3, support=0.75),
        PairNumbers(gap=1.0, weight=2.0, margin=2.0, agreement=None, support=None),
    ]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"min_agreement": 1.5}, "min_agreement is 1.5"),
        ({"min_agreement": -0.1}, "min_agreement is -0.1"),
        ({"margin_from_gap": -1.0}, "margin_from_gap is -1.0"),
        ({"top": 0}, "top is 0"),
        ({"weight_by_agreement": True}, "min_agreement, which is 0"),
        ({"choice": "all", "top": 3}, "top and bottom are for top_bottom, but choice is all"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, words):
    with pytest.raises(UserError, match=words):
        PairArguments(**settings)


# The account


def random_rankings(draw, number):
    """Rankings of all kinds: empty, identical, unranked, tied, alone, disagreeing."""
    found = []
    for _ in range(number):
        n = draw.randint(1, 6)
        texts = [
            draw.choice(["", " ", "a", "a ", "b", "c", "d", f"{k}", f"{k}."]) for k in range(n)
        ]
        rows = []
        for _ in range(draw.randint(0, 3)):
            scores = [draw.choice([None, 1, 2, 3, 4]) for _ in range(n)]
            given = [s for s in scores if s is not None]
            rows.append(
                [
                    None
                    if s is None
                    else (sum(x < s for x in given) + sum(x <= s for x in given) + 1) / 2
                    for s in scores
                ]
            )
        flaw = "no common prompt" if draw.random() < 0.1 else ""
        prompt = f"prompt {draw.randint(0, number)}"
        found.append(ranking(rows, texts, prompt=prompt, absent=draw.randint(0, 1), flaw=flaw))
    return found


@pytest.mark.parametrize("seed", range(12))
def test_the_account_adds_up(seed):
    draw = random.Random(seed)
    rankings = [*random_rankings(draw, 60), USABLE]
    choice = draw.choice(["top_bottom", "all", "best_worst"])
    aggregation = draw.choice(["mean", "borda", "bradley_terry"])
    low = draw.choice([0.0, 0.6])
    pairs, account = paired(
        *rankings,
        choice=choice,
        aggregation=aggregation,
        min_agreement=low,
        weight_by_agreement=bool(low) and draw.random() < 0.5,
    )
    # What was read, and what came of it, counted here.
    most = {
        "top_bottom": lambda n: {0: 0, 1: 0, 2: 1, 3: 3}.get(n, 4),
        "all": lambda n: n * (n - 1) // 2,
        "best_worst": lambda n: int(n > 1),
    }[choice]
    sizes = [len(r.responses) for r in rankings]
    assert account.found == (len(rankings), sum(sizes), sum(map(most, sizes)))
    assert account.kept.pairs == len(pairs)
    keys = {r.prompt_key for r in rankings if not r.flaw}
    assert (account.prompts, account.prompts_kept) == (keys, {p.prompt_key for p in pairs})
    # Every column: read less what was dropped is what is kept.
    facts = account.as_dict()
    for column in ("rankings", "responses", "pairs"):
        lost = sum(counts[column] for counts in facts["dropped"].values())
        assert facts["read"][column] - lost == facts["kept"][column] >= 0
        assert all(counts[column] >= 0 for counts in facts["dropped"].values())
    for counts in facts["dropped"].values():
        assert counts["seen_in"] >= counts["rankings"]
    assert len(facts["dropped"]) >= 5
    by_orders = facts["labelers"]["rankings_by_orders"]
    assert sum(by_orders.values()) == len(rankings)
    assert sum(int(n) * k for n, k in by_orders.items()) == facts["labelers"]["orders"]
    assert facts["labelers"]["could_not_judge"] == sum(r.absent for r in rankings)
    json.dumps(facts, allow_nan=False)


def test_the_account_can_be_read_in_a_terminal():
    names = {"labelers": ("ann", "bob", "eve"), "absent": 1}
    rankings = [
        ranking([(1, 2, 3, 4, 5), (1, 2, 3, 4, 5)], **names),
        ranking([(1, 2, 3)], ["x", "x", "y"], prompt="b"),
        ranking([(1.5, 1.5)], prompt="c"),
    ]
    _, account = paired(*rankings)
    assert account.table().split("\n") == [
        "             seen in  rankings  responses  pairs",
        "read                         3         10      8",
        "- identical        1         0          1      2",
        "- tied             1         1          2      1",
        "= kept                       2          7      5",
        "3 prompts, of which 2 have pairs; 4 orders by 3 labelers, 1 could not judge; "
        "who ranked: the data does not say",
        "agreement: Kendall's W 1.000 on average over 1 rankings",
    ]
