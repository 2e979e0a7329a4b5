"""Agreement statistics against published worked examples, brute force, and what must hold."""

import itertools
import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.data.agreement import kendalls_w
from step2_reward.annotation.agreement import (
    kendalls_tau_b,
    krippendorffs_alpha,
    share_agreed,
)

# --- published examples


def test_kendalls_w_of_the_strawberries():
    """Four raters, eight farms; S = 500, W = 0.744
    (https://influentialpoints.com/Training/coefficient_of_concordance.htm)."""
    ranks = [
        [8, 4, 2, 3, 5, 1, 6, 7],
        [7, 3, 1, 4, 5, 2, 6, 8],
        [8, 2, 5, 6, 7, 1, 4, 3],
        [8, 3, 4, 2, 5, 1, 6, 7],
    ]
    assert kendalls_w(ranks) == pytest.approx(0.744, abs=5e-4)


def test_kendalls_w_with_ties():
    """Kendall and Gibbons, Rank Correlation Methods, chapter 6: S = 591, W = 0.828."""
    ranks = [
        [1, 4.5, 2, 4.5, 3, 7.5, 6, 9, 7.5, 10],
        [2.5, 1, 2.5, 4.5, 4.5, 8, 9, 6.5, 10, 6.5],
        [2, 1, 4.5, 4.5, 4.5, 4.5, 8, 8, 8, 10],
    ]
    assert kendalls_w(ranks) == pytest.approx(0.828, abs=5e-4)


KRIPPENDORFF = [
    # Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011, section C: four observers
    # (rows), twelve units; 0 where an observer did not judge.
    [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
    [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
]


def test_krippendorffs_alpha_of_the_reliability_data():
    """Ordinal: 0.815 (the same data give 0.743 as nominal and 0.849 as interval values)."""
    units = [[value for value in unit if value] for unit in zip(*KRIPPENDORFF, strict=True)]
    assert krippendorffs_alpha(units) == pytest.approx(0.815, abs=5e-4)


# --- brute force

values = st.lists(st.integers(1, 4), min_size=2, max_size=5)


@given(st.lists(st.lists(st.integers(1, 4), min_size=0, max_size=4), max_size=8))
def test_alpha_against_its_definition(units):
    """Coincidences counted pair by pair, differences by counting the values in between."""
    paired = [unit for unit in units if len(unit) > 1]
    flat = [v for unit in paired for v in unit]

    def difference(c, k):
        low, high = min(c, k), max(c, k)
        between = sum(1 for v in flat if low <= v <= high)
        return (between - flat.count(c) / 2 - flat.count(k) / 2) ** 2 if c != k else 0.0

    observed = expected = 0.0
    for unit in paired:
        for i, j in itertools.permutations(range(len(unit)), 2):
            observed += difference(unit[i], unit[j]) / (len(unit) - 1)
    for i, j in itertools.permutations(range(len(flat)), 2):
        expected += difference(flat[i], flat[j])
    alpha = krippendorffs_alpha(units)
    if expected == 0:
        assert alpha is None
    else:
        assert alpha == pytest.approx(1 - observed / (expected / (len(flat) - 1)), abs=1e-9)


@given(st.integers(2, 5), st.integers(2, 6), st.integers(0, 99))
def test_w_without_ties_is_a_mean_of_spearman_correlations(labelers, responses, seed):
    """W = (1 + (m − 1)·ρ) / m, with ρ the mean over pairs of labelers."""
    draws = random.Random(seed)
    ranks = [draws.sample(range(1, responses + 1), responses) for _ in range(labelers)]
    rhos = []
    for a, b in itertools.combinations(ranks, 2):
        squares = sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
        rhos.append(1 - 6 * squares / (responses * (responses**2 - 1)))
    mean = sum(rhos) / len(rhos)
    assert kendalls_w(ranks) == pytest.approx((1 + (labelers - 1) * mean) / labelers)


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=2, max_size=6))
def test_tau_b_against_its_definition(pairs):
    a, b = zip(*pairs, strict=True)
    concordant = discordant = only_a = only_b = 0
    for (x1, y1), (x2, y2) in itertools.combinations(pairs, 2):
        if x1 == x2 and y1 == y2:
            continue
        if x1 == x2:
            only_a += 1
        elif y1 == y2:
            only_b += 1
        elif (x1 < x2) == (y1 < y2):
            concordant += 1
        else:
            discordant += 1
    both = concordant + discordant
    below = math.sqrt((both + only_a) * (both + only_b))
    if below == 0:
        assert kendalls_tau_b(a, b) is None
    else:
        assert kendalls_tau_b(a, b) == pytest.approx((concordant - discordant) / below)


# --- what must hold


@given(values)
def test_labelers_who_agree(ranks):
    if len(set(ranks)) > 1:
        places = [sum(o < r for o in ranks) + (1 + ranks.count(r)) / 2 for r in ranks]
        assert kendalls_w([places, places, places]) == pytest.approx(1)
        assert kendalls_tau_b(places, places) == pytest.approx(1)
        assert krippendorffs_alpha([[r, r] for r in ranks]) == pytest.approx(1)
        assert share_agreed(places, places) == 1
        assert share_agreed([-p for p in places], places) == 0


def test_alpha_of_units_that_are_counted():
    units = [(1.0, 2.0), (2.0, 2.0), (1.0, 2.0), (3.0, 1.0, 2.0), (1.0,)]
    assert krippendorffs_alpha(Counter(units)) == krippendorffs_alpha(units)


def test_opposite_orders():
    assert kendalls_w([[1, 2, 3, 4], [4, 3, 2, 1]]) == 0
    assert kendalls_tau_b([1, 2, 3, 4], [4, 3, 2, 1]) == -1


def test_chance_is_about_zero_for_alpha():
    draws = random.Random(0)
    prompts = [[draws.sample(range(5), 5) for _ in range(3)] for _ in range(400)]
    units = [unit for ranks in prompts for unit in zip(*ranks, strict=True)]
    assert abs(krippendorffs_alpha(units)) < 0.05
    mean = sum(kendalls_w(ranks) for ranks in prompts) / len(prompts)
    assert mean == pytest.approx(1 / 3, abs=0.03)  # what the project page tells its reader


def test_a_tie_is_half_right():
    assert share_agreed([1.5, 1.5, 3], [1, 2, 3]) == pytest.approx(2.5 / 3)


@pytest.mark.parametrize("ranks", [[], [[1, 2]], [[1], [1]], [[1.5, 1.5], [1.5, 1.5]]])
def test_where_w_is_not_defined(ranks):
    assert kendalls_w(ranks) is None
