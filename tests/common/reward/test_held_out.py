"""Held-out pairs with their scores, ranks, labelers and lengths, against loops."""

from dataclasses import replace

import numpy as np
import pytest

from common.data.encoding import Comparison
from common.data.records import Message, Pair, Ranking
from common.reward.diagnostics import gap_groups, gap_name, measure, worst_mistakes
from common.reward.held_out import held_out_of
from common.reward.labelers import (
    agreement_groups,
    agreement_name,
    leave_one_out,
    one_against_others,
    support_groups,
)
from common.reward.lengths import length_correlations, length_only, longer_wins
from common.reward.training import PairObjective, RewardArguments
from tests.common.reward.held_out_pairs import make


def objective(comparisons):
    return PairObjective(comparisons, 0, RewardArguments(), share_prompts=False)


def ranking_of(*ranks):
    texts = tuple("abcdefg"[: len(ranks[0])])
    return Ranking((Message("user", "q"),), texts, tuple(ranks), "file:1")


# Who says what of which pair.


def test_scores_stand_beside_their_pairs():
    comparisons, rankings, scores = make(12)
    found = held_out_of(comparisons, scores, rankings[::-1])
    k = 0
    for number, (comparison, values) in enumerate(zip(comparisons, scores, strict=True)):
        for (i, j), pair in zip(comparison.pairs, comparison.records, strict=True):
            assert found.pairs[k] is pair and found.prompts[k] == number
            assert found.scores[k].tolist() == [values[i], values[j]]
            assert found.differences[k] == values[i] - values[j]
            k += 1
    assert k == len(found.pairs) and found.rankings == rankings and found.ranked


def test_every_response_in_a_pair_counts_once():
    comparisons, rankings, scores = make(12)
    r = held_out_of(comparisons, scores, rankings).responses
    expected = []
    for number, comparison in enumerate(comparisons):
        for i in sorted({i for pair in comparison.pairs for i in pair}):
            text = rankings[number].responses[i]
            rank = sum(row[i] for row in rankings[number].ranks) / 3
            expected.append((scores[number][i], len(text), number, rank))
    np.testing.assert_allclose(np.stack(r, axis=1), np.array(expected))
    assert len(r.scores) <= 4 * 12  # the third of five is in no pair


def test_without_rankings_a_response_stands_by_the_pairs_that_it_loses():
    comparisons, _, scores = make(5)
    found = held_out_of(comparisons, scores, [])
    assert found.rankings == [None] * 5 and not found.ranked
    expected = []
    for c in comparisons:
        for row in sorted({i for pair in c.pairs for i in pair}):
            losses = [row == worse for better, worse in c.pairs if row in (better, worse)]
            expected.append(sum(losses) / len(losses))
    assert found.responses.standing.tolist() == expected and set(expected) == {0.0, 1.0}
    assert found.agreement() == [None] * len(found.pairs) and np.isnan(leave_one_out(found)).all()


def test_a_rank_among_few_counts_as_one_among_all():
    """The second of two stands for 8/3 of four, the second of four for 2: the former is worse."""
    texts = ("a", "b", "c", "d")
    ranks = ((1, 2, 3, 4), (None, None, 1, 2))
    ranking = Ranking((Message("user", "q"),), texts, ranks, "f:1")
    pairs = [(0, 3), (1, 3), (2, 3)]
    records = [Pair(ranking.messages, texts[i], texts[j], 1.0, "f:1") for i, j in pairs]
    comparison = Comparison([[1, 2 + i] for i in range(4)], pairs, records, 1)
    (found,) = [held_out_of([comparison], [[0.0] * 4], [ranking])]
    # Rank r of k stands for r·5/(k + 1) of four.
    expected = [1.0, 2.0, (3 + 5 / 3) / 2, (4 + 10 / 3) / 2]
    assert found.responses.standing.tolist() == pytest.approx(expected)


def test_of_two_rankings_of_a_prompt_the_one_that_has_the_pairs_responses_counts():
    (comparison,), (ranking,), (scores,) = make(1)
    other = replace(ranking, responses=tuple(f"other {i}" for i in range(5)), ranks=((5.0,) * 5,))
    found = held_out_of([comparison], [scores], [other, ranking])
    assert found.rankings == [ranking]
    assert held_out_of([comparison], [scores], [other]).rankings == [None]


def test_ranks_say_more_than_pairs_where_a_group_has_three_responses():
    def of(number, responses):
        texts, ranks = tuple("abc"[:responses]), (tuple(range(1, responses + 1)),)
        ranking = Ranking((Message("user", f"{number}"),), texts, ranks, "f:1")
        pair = Pair(ranking.messages, "a", "b", 1.0, "f:1")
        return Comparison([[1, 2], [1, 3]], [(0, 1)], [pair], 1), ranking

    for sizes, known, ranked in (((2, 2), 2, False), ((2, 3), 2, True), ((3, 3), 1, False)):
        comparisons, rankings = zip(*map(of, (0, 1), sizes), strict=True)
        assert held_out_of(comparisons, [[1.0, 0.0]] * 2, rankings[:known]).ranked == ranked


# Labelers.


def by_loops(ranking, i, j):
    """By its definition, over means of the others' ranks."""
    found = []
    for k, own in enumerate(ranking.ranks):
        others = [row for n, row in enumerate(ranking.ranks) if n != k]
        mine = own[j] - own[i]
        theirs = sum(r[j] for r in others) / len(others) - sum(r[i] for r in others) / len(others)
        if abs(theirs) < 1e-12 or mine == 0:
            found.append(0.5)
        else:
            found.append(float((mine > 0) == (theirs > 0)))
    return found


def test_the_ceiling_leaves_each_labeler_out():
    comparisons, rankings, scores = make(40, labelers=4)
    held_out = held_out_of(comparisons, scores, rankings)
    values = []
    for comparison, ranking in zip(comparisons, rankings, strict=True):
        for i, j in comparison.pairs:
            found = by_loops(ranking, i, j)
            texts = ranking.responses[i], ranking.responses[j]
            assert one_against_others(ranking, *texts) == found
            values.append(sum(found) / 4)
    assert leave_one_out(held_out).tolist() == pytest.approx(values)
    assert 0.7 < sum(values) / len(values) < 0.99


def test_the_model_is_held_against_the_ceiling_on_the_pairs_that_have_one():
    comparisons, rankings, scores = make(40, seed=5)
    for number in range(20):  # these have a single labeler, and are scored the wrong way round
        rankings[number] = replace(rankings[number], ranks=rankings[number].ranks[:1])
        scores[number] = [-score for score in scores[number]]
    held_out = held_out_of(comparisons, scores, rankings)
    found = measure(held_out, objective(comparisons), seed=0)
    right = [
        (float(d > 0), one_against_others(rankings[n], p.chosen, p.rejected))
        for d, n, p in zip(held_out.differences, held_out.prompts, held_out.pairs, strict=True)
    ]
    known = [(r, sum(votes) / 3) for r, votes in right if votes]
    assert found["ceiling"]["count"] == len(known) < len(right)
    assert found["ceiling"]["model"] == pytest.approx(sum(r for r, _ in known) / len(known))
    value = sum(v for _, v in known) / len(known)
    assert found["ceiling"]["value"] == pytest.approx(value, abs=1e-4)
    assert found["ceiling"]["model"] > found["accuracy"]["value"] + 0.1


def test_accuracy_by_how_many_labelers_prefer_the_preferred_response():
    shares = [None, 0.0, 1 / 3, 0.5, 2 / 3, 1.0]
    pairs = [Pair((), "a", "b", 1.0, "f", support=s) for s in shares]
    assert support_groups(pairs) == [None, 0, 0, 0, 1, 2]
    comparisons, rankings, scores = make(30, seed=4)
    marked = []
    for number, c in enumerate(comparisons):
        records = [replace(p, support=(1.0, 2 / 3)[number % 2]) for p in c.records]
        marked.append(Comparison(c.rows, c.pairs, records, c.prompt_tokens))
    held_out = held_out_of(marked, scores, rankings)
    found = measure(held_out, objective(comparisons), seed=0)["by_support"]
    assert list(found) == ["most of them", "all of them"]
    for parity, name in ((0, "all of them"), (1, "most of them")):
        both = zip(held_out.differences, held_out.prompts, strict=True)
        kept = [d for d, number in both if number % 2 == parity]
        assert found[name]["value"] == pytest.approx(sum(d > 0 for d in kept) / len(kept), abs=1e-4)
        assert found[name]["count"] == len(kept)
    alone = [
        Comparison(c.rows, c.pairs, [replace(p, support=1.0) for p in c.records], 2)
        for c in comparisons
    ]
    found = measure(held_out_of(alone, scores, rankings), objective(comparisons), seed=0)
    assert found["by_support"] is None  # one group, which is all of them


def test_one_labeler_against_the_others_by_hand():
    three = ranking_of((1, 2, 3), (1, 3, 2), (2, 1, 3))
    # b − a: +1, +2, −1. The others of the first: +1; of the second: 0; of the third: +3.
    assert one_against_others(three, "a", "b") == [1.0, 0.5, 0.0]
    assert one_against_others(ranking_of((1, 2)), "a", "b") == []
    tied = ranking_of((1.5, 1.5), (1, 2))
    assert one_against_others(tied, "a", "b") == [0.5, 0.5]
    absent = ranking_of((1, None, 2), (1, 2, 3), (2, 1, 3))
    assert one_against_others(absent, "a", "b") == [0.0, 0.0]
    assert one_against_others(absent, "a", "c") == [1.0, 1.0, 1.0]


def test_agreement_is_the_labelers_or_what_the_pairs_bring():
    comparisons, rankings, scores = make(6, noise=0.0)
    held_out = held_out_of(comparisons, scores, rankings)
    assert held_out.agreement() == [pytest.approx(1.0)] * len(held_out.pairs)
    for c in comparisons[:2]:  # a file of pairs may say it itself
        c.records[:] = [replace(p, agreement=0.3) for p in c.records]
    known = held_out_of(comparisons, scores, rankings)
    expected = [0.3 if number < 2 else 1.0 for number in known.prompts]
    assert known.agreement() == pytest.approx(expected)
    assert agreement_groups([None, 0.0, 0.25, 0.6, 0.75, 1.0]) == [None, 0, 1, 2, 3, 3]
    assert [agreement_name(g) for g in range(4)] == [
        "0 to 0.25",
        "0.25 to 0.5",
        "0.5 to 0.75",
        "0.75 to 1",
    ]


# Length.


def test_the_length_only_baseline_learns_its_direction_from_the_training_pairs():
    comparisons, rankings, scores = make(60, seed=3)
    held_out = held_out_of(comparisons, scores, rankings)
    long_wins = [of_texts("long one", "short"), of_texts("longest", "long"), of_texts("a", "bb")]
    right = sum(
        1.0 if len(p.chosen) > len(p.rejected) else 0.5 * (len(p.chosen) == len(p.rejected))
        for p in held_out.pairs
    ) / len(held_out.pairs)
    assert abs(right - 0.5) > 0.01  # else both rules would be equally good
    longer = length_only(held_out, long_wins)
    shorter = length_only(held_out, [of_texts("a", "bb")])
    assert (longer["prefers"], shorter["prefers"]) == ("longer", "shorter")
    assert longer["accuracy"].value == pytest.approx(right)
    assert shorter["accuracy"].value == pytest.approx(1 - right)
    model = sum(d > 0 for d in held_out.differences) / len(held_out.pairs)
    assert longer["model_minus"].value == pytest.approx(model - right)
    assert longer["model_minus"].low > 0
    assert longer_wins(np.array([[2.0, 1.0], [1.0, 2.0]]))


def of_texts(chosen, rejected):
    pair = Pair((Message("user", "q"),), chosen, rejected, 1.0, "f:1")
    return Comparison([[1, 2], [1, 3]], [(0, 1)], [pair], 1)


def test_a_score_that_is_the_rank_owes_nothing_to_length():
    """Length follows the rank and noise, the score the rank alone: nothing is left given it."""
    comparisons, rankings, _ = make(300, seed=7, noise=0.3)
    scores = [
        [-sum(row[i] for row in ranking.ranks) / 3 + 100 * number for i in range(5)]
        for number, ranking in enumerate(rankings)
    ]
    found = length_correlations(held_out_of(comparisons, scores, rankings))
    assert found["given_rank"] is None  # the fit leaves nothing of the score
    for number, values in enumerate(scores):
        for i in range(5):
            values[i] += 0.1 * len(rankings[number].responses[i])
    found = length_correlations(held_out_of(comparisons, scores, rankings))
    assert found["given_rank"] > 0.99 > found["within_prompts"] > found["all"]
    assert found["rank_known_from"] == "labelers' ranks"


# Mistakes, and all of it together.


def test_the_worst_mistakes_are_of_different_prompts_and_sorted():
    comparisons, rankings, scores = make(60, seed=3)
    held_out = held_out_of(comparisons, scores, rankings)
    found = worst_mistakes(held_out, deviation=2.0)
    worst = {}
    for difference, prompt in zip(held_out.differences, held_out.prompts, strict=True):
        worst[prompt] = min(worst.get(prompt, 0.0), float(difference))
    expected = sorted(-w / 2 for w in worst.values() if w < 0)[::-1][:10]
    assert [m.wrong_by for m in found] == pytest.approx(expected) and len(expected) == 10
    assert len({m.pair.prompt_key for m in found}) == 10
    assert all(m.scores[0] < m.scores[1] for m in found)


def test_measures_of_a_handful_say_less_and_are_json():
    import json

    comparisons, rankings, scores = make(3)
    training = objective(make(20, seed=9)[0])
    found = measure(held_out_of(comparisons, scores, rankings), training, seed=0)
    assert found["calibration"] is None and found["length_only"]["model_minus"] is None
    json.dumps(found, allow_nan=False)
    comparisons, rankings, scores = make(30)
    found = measure(held_out_of(comparisons, scores, rankings), training, seed=0)
    json.dumps(found, allow_nan=False)
    pairs = sum(len(c.pairs) for c in comparisons)
    assert sum(part["count"] for part in found["by_gap"].values()) == pairs
    assert sum(part["count"] for part in found["by_agreement"].values()) == pairs
    assert found["calibration"]["factor"] > 0
    one = measure(held_out_of(comparisons[:1], scores[:1], []), training, seed=0)
    assert one["by_agreement"] is None and one["ceiling"] is None
    json.dumps(one, allow_nan=False)


def test_gaps_are_grouped_by_whole_ranks():
    pairs = [Pair((), "a", "b", gap, "f") for gap in (0.5, 1.0, 1.25, 4.0, 10.5)]
    assert [gap_name(g) for g in gap_groups(pairs)] == ["0-1", "0-1", "1-2", "3-4", "10-11"]
    # Means over three labelers that are exactly one rank apart, and a third more.
    thirds = [Pair((), "a", "b", b / 3 - a / 3, "f") for a in range(3, 16) for b in (a + 3, a + 4)]
    assert gap_groups(thirds) == [1, 2] * 13
