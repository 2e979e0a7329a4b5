"""Scores and intervals: against the equations that define them, and against chance itself."""

import math

import numpy as np
import pytest

from common.evaluation.benchmarks.scores import (
    Estimate,
    benchmark_score,
    estimate,
    mean_of_parts,
    percent,
    score_of,
)

Z = 1.959963984540054
"""The normal distribution's 97.5 % quantile."""


def rows(*scores):
    return [{"score": s} for s in scores]


def limit_by_bisection(share, n, inside, outside):
    """The true share at which the observed one lies just Z deviations away."""
    for _ in range(100):
        middle = (inside + outside) / 2
        if abs(share - middle) <= Z * math.sqrt(middle * (1 - middle) / n):
            inside = middle
        else:
            outside = middle
    return inside


@pytest.mark.parametrize(("share", "n"), [(0.3, 10), (0.5, 400), (0.97, 33), (2 / 3, 3)])
def test_wilsons_limits_are_where_the_test_of_the_share_turns(share, n):
    found = estimate(share, n)
    assert found.low == pytest.approx(limit_by_bisection(share, n, share, 0.0), abs=1e-9)
    assert found.high == pytest.approx(limit_by_bisection(share, n, share, 1.0), abs=1e-9)


def test_no_right_answer_and_only_right_ones_leave_an_interval():
    assert estimate(0.0, 20)[:2] == (0.0, 0.0) and 0.1 < estimate(0.0, 20).high < 0.2
    assert estimate(1.0, 20).high == 1.0 and 0.8 < estimate(1.0, 20).low < 0.9


def test_a_single_part_keeps_its_own_interval():
    part = Estimate(0.4, 0.1, 0.8)
    assert mean_of_parts([part]) == pytest.approx(part)


def test_each_side_of_a_mean_adds_up_like_deviations():
    parts = [Estimate(0.5, 0.2, 0.6), Estimate(0.7, 0.3, 0.9), Estimate(0.0, 0.0, 0.3)]
    found = mean_of_parts(parts)
    assert found.score == pytest.approx(0.4)
    assert (found.score - found.low) ** 2 == pytest.approx((0.3**2 + 0.4**2 + 0.0) / 9)
    assert (found.high - found.score) ** 2 == pytest.approx((0.1**2 + 0.2**2 + 0.3**2) / 9)


def test_a_mean_over_parts_is_covered_as_often_as_it_says():
    rng = np.random.default_rng(0)
    shares, sizes, draws = [0.1, 0.6, 0.9], [20, 50, 15], 2000
    covered = 0
    for _ in range(draws):
        own = [estimate(rng.binomial(n, p) / n, n) for p, n in zip(shares, sizes, strict=True)]
        found = mean_of_parts(own)
        covered += found.low <= sum(shares) / 3 <= found.high
    assert 0.93 < covered / draws < 0.98


def test_parts_count_alike_and_questions_do_where_the_benchmark_has_it_so():
    parts = {"long": rows(1, 1, 1, 0), "short": rows(0)}
    assert benchmark_score("mmlu", parts).score == pytest.approx((3 / 4 + 0) / 2)
    assert benchmark_score("math", parts) == estimate(3 / 5, 5)
    assert score_of(rows(1, 0, 0.5)) == estimate(0.5, 3)


def test_percents_have_two_digits():
    assert percent(Estimate(0.123456, 0.1, 1.0)) == {"score": 12.35, "low": 10.0, "high": 100.0}
