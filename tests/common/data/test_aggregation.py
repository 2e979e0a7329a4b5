"""Aggregation against enumeration, brute-force likelihood and the properties it must have."""

import itertools
import math
import random

import numpy as np
import pytest

from common.data.aggregation import (
    RIDGE,
    aggregate,
    borda_ranks,
    bradley_terry_ranks,
    bradley_terry_strengths,
    comparisons,
    mean_ranks,
)

METHODS = ["mean", "borda", "bradley_terry"]


def ranked(groups, n):
    """Ranks of an order such as [2, [0, 3]], written out place by place."""
    row, place = [None] * n, 0
    for group in groups:
        tied = group if isinstance(group, list) else [group]
        for i in tied:
            row[i] = sum(range(place + 1, place + len(tied) + 1)) / len(tied)
        place += len(tied)
    return row


def drawn(seed, *, labelers, n, complete=False):
    """Random orders with ties, as ranks; incomplete ones unless told otherwise."""
    draw = random.Random(seed)
    rows = []
    for _ in range(labelers):
        named = draw.sample(range(n), n if complete else draw.randint(2, n))
        groups = []
        for i in named:
            if groups and draw.random() < 0.25:
                groups[-1].append(i)
            else:
                groups.append([i])
        rows.append(ranked(groups, n))
    return rows


def test_the_mean_of_complete_rankings_is_the_mean():
    assert mean_ranks([(1, 2, 3), (1, 3, 2), (2.5, 2.5, 1)]) == [1.5, 2.5, 2]


@pytest.mark.parametrize(("n", "k"), [(5, 2), (5, 4), (6, 3), (4, 4)])
def test_a_rank_among_few_stands_for_its_expected_place_among_all(n, k):
    # Every way in which k of n places can be drawn; the r-th best of the k, on average.
    subsets = list(itertools.combinations(range(1, n + 1), k))
    expected = [sum(s[r] for s in subsets) / len(subsets) for r in range(k)]
    found = mean_ranks([[*range(1, k + 1), *[None] * (n - k)]])
    assert found == pytest.approx([*expected, *[None] * (n - k)])


@pytest.mark.parametrize("seed", range(10))
def test_borda_counts_the_share_of_comparisons_won(seed):
    rows = drawn(seed, labelers=3, n=5)
    expected = []
    for i in range(5):
        won = of = 0
        for row in rows:
            for j in range(5):
                if j != i and row[i] is not None and row[j] is not None:
                    won += 1 if row[i] < row[j] else 0.5 if row[i] == row[j] else 0
                    of += 1
        expected.append(None if of == 0 else 1 + 4 * (1 - won / of))
    assert borda_ranks(rows) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(10))
def test_borda_of_complete_rankings_is_the_mean_rank(seed):
    rows = drawn(seed, labelers=4, n=6, complete=True)
    assert borda_ranks(rows) == pytest.approx([sum(c) / 4 for c in zip(*rows, strict=True)])


def log_posterior(strengths, rows, ridge):
    """Likelihood of every labeler's every comparison, from the definition; ties half each way."""
    total = 0.0
    for row in rows:
        for i, j in itertools.permutations(range(len(row)), 2):
            if row[i] is None or row[j] is None or row[i] > row[j]:
                continue
            share = 0.5 if row[i] == row[j] else 1.0
            a, b = math.exp(strengths[i]), math.exp(strengths[j])
            total += share * math.log(a / (a + b))
    return total - ridge / 2 * sum(s * s for s in strengths)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("ridge", [RIDGE, 0.5])
def test_bradley_terry_is_where_brute_force_finds_the_likelihood_largest(seed, ridge):
    rows = drawn(seed, labelers=3, n=3 + seed % 2)
    n = len(rows[0])
    best, radius = [0.0] * n, 4.0
    while radius > 1e-5:  # a pattern search: no derivative, no matrix
        tries = [
            [*best[:i], best[i] + step, *best[i + 1 :]]
            for i in range(n)
            for step in (-radius, radius)
        ]
        better = max(tries, key=lambda s: log_posterior(s, rows, ridge))
        if log_posterior(better, rows, ridge) > log_posterior(best, rows, ridge):
            best = better
        else:
            radius /= 2
    found = bradley_terry_strengths(comparisons(rows), ridge=ridge)
    assert found == pytest.approx(best, abs=5e-3)
    assert log_posterior(found, rows, ridge) >= log_posterior(best, rows, ridge) - 1e-9


def test_bradley_terry_of_two_is_the_log_odds():
    # Two wins to one: with next to no ridge the strengths differ by log 2.
    found = bradley_terry_strengths(np.array([[0.0, 2.0], [1.0, 0.0]]), ridge=1e-9)
    assert found[0] - found[1] == pytest.approx(math.log(2))
    assert bradley_terry_ranks([[1, 2], [1, 2], [2, 1]], ridge=1e-9) == pytest.approx(
        [4 / 3, 5 / 3]
    )


def test_bradley_terry_is_finite_for_the_undefeated_and_for_parts_never_compared():
    # 0 beats 1 a thousand times, 2 beats 3 once, and the two halves never meet.
    rows = [[1, 2, None, None]] * 1000 + [[None, None, 1, 2]]
    strengths = bradley_terry_strengths(comparisons(rows))
    assert np.isfinite(strengths).all()
    assert strengths.sum() == pytest.approx(0, abs=1e-9)
    assert strengths[0] > strengths[2] > 0 > strengths[3] > strengths[1]


def test_bradley_terry_heeds_whom_a_response_beat():
    # 0 and 1 never met, and each won one of two. 0 split with the strong 2, 1 with the weak 3.
    rows = [
        *([[1, None, 2, None], [2, None, 1, None], [None, 1, None, 2], [None, 2, None, 1]]),
        *([[None, None, 1, 2]] * 5),
    ]
    by_share = borda_ranks(rows)
    assert by_share[0] == by_share[1]
    by_strength = bradley_terry_ranks(rows)
    assert by_strength[0] < by_strength[1] - 0.1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(8))
def test_knows_no_names_and_no_order_of_labelers(method, seed):
    rows = drawn(seed, labelers=3, n=5)
    found = aggregate(rows, method)
    places = random.Random(seed).sample(range(5), 5)
    turned = aggregate([[row[i] for i in places] for row in rows[::-1]], method)
    assert turned == [None if found[i] is None else pytest.approx(found[i]) for i in places]
    # To tell the same three labelers' orders twice changes no mean; the ridge weighs half as much.
    if method != "bradley_terry":
        assert aggregate(rows * 2, method) == found


@pytest.mark.parametrize("method", METHODS)
def test_one_labeler_gives_back_the_order_and_the_unanimous_their_order(method):
    row = ranked([3, [0, 4], 2, 1], 5)
    for rows in ([row], [row] * 3):
        found = aggregate(rows, method)
        assert found[0] == found[4]
        assert sorted(range(5), key=lambda i: (found[i], i)) == [3, 0, 4, 2, 1]
        assert all(1 <= x <= 5 for x in found)
        assert sum(found) == pytest.approx(15)


@pytest.mark.parametrize("method", METHODS)
def test_opposite_labelers_leave_everything_level(method):
    found = aggregate([[1, 2, 3, 4], [4, 3, 2, 1]], method)
    assert found == [2.5] * 4


@pytest.mark.parametrize("method", METHODS)
def test_what_nobody_compared_has_no_rank(method):
    # Response 2 was named by nobody, 3 by a labeler who named nothing else, one could not judge.
    rows = [[1, 2, None, None], [None, None, None, 1], [None] * 4]
    found = aggregate(rows, method)
    assert found[2:] == [None, None]
    assert found[0] < found[1]
    assert aggregate([[None, None]], method) == [None, None]
    assert aggregate([], method) == []


def test_level_responses_are_level_to_the_last_bit():
    # Thirds and sixths, whose float sums depend on their order.
    rows = [ranked(order, 5) for order in ([0, 1], [1, 0, 2], [2, 3, 4, 0, 1], [4, 3, 1, 0])]
    mirrored = [[row[i] for i in (1, 0, 2, 3, 4)] for row in rows]
    for method in METHODS:
        found = aggregate(rows + mirrored[::-1], method)
        assert found[0] == found[1]
