"""Shares, intervals and correlations against loops from their definitions."""

import math
import random
from statistics import NormalDist

import numpy as np
import pytest

from common.reward.measures import (
    bootstrap,
    by_group,
    centred,
    correlation,
    distribution,
    mean,
    partial_correlation,
    share,
    wilson,
)


@pytest.mark.parametrize(("share_", "draws"), [(0.0, 4), (0.5, 10), (0.9, 30), (1.0, 3)])
def test_wilsons_interval_is_where_the_score_test_just_passes(share_, draws):
    """Its ends are the p with |share − p| = z·√(p(1 − p)/n), found here by search."""
    z = NormalDist().inv_cdf(0.975)

    def passes(p):
        return abs(share_ - p) <= z * math.sqrt(p * (1 - p) / draws) + 1e-12

    inside = [p for p in (i / 100_000 for i in range(100_001)) if passes(p)]
    assert wilson(share_, draws) == pytest.approx((inside[0], inside[-1]), abs=2e-5)


def test_the_bootstrap_draws_whole_prompts():
    """Four equal pairs a prompt say no more than one: the interval must not shrink."""
    draw = random.Random(1)
    once = np.array([float(draw.random() < 0.7) for _ in range(80)])
    prompts = np.arange(80)
    alone = bootstrap(once, prompts)
    repeated = bootstrap(np.repeat(once, 4), np.repeat(prompts, 4))
    assert repeated == pytest.approx(alone, abs=1e-12)
    naive = bootstrap(np.repeat(once, 4), np.arange(320))
    assert naive[1] - naive[0] < 0.6 * (alone[1] - alone[0])
    half = 1.96 * math.sqrt(once.mean() * (1 - once.mean()) / 80)  # many prompts: nearly normal
    assert alone == pytest.approx((once.mean() - half, once.mean() + half), abs=0.03)


def test_the_bootstrap_weighs_prompts_by_their_pairs():
    """Drawn one by one in a loop, the mean over all pairs each time."""
    values, prompts = np.array([1.0, 1, 1, 0, 0.5, 0]), np.array([0, 0, 0, 1, 1, 2])
    draw = random.Random(0)
    parts = {k: [v for v, p in zip(values, prompts, strict=True) if p == k] for k in range(3)}
    means = []
    for _ in range(4000):
        drawn = [x for _ in range(3) for x in parts[draw.randrange(3)]]
        means.append(sum(drawn) / len(drawn))
    means.sort()
    assert bootstrap(values, prompts) == pytest.approx((means[100], means[3899]), abs=0.08)


def test_few_prompts_or_equal_values_get_a_wide_interval():
    few = share(np.array([1.0, 1.0, 1.0, 0.0]), np.array([0, 0, 1, 2]))
    assert (few.low, few.high) == wilson(0.75, 3)
    same = share(np.ones(200), np.arange(200) % 50)
    assert (same.low, same.high) == wilson(1.0, 50) and same.low < 0.95
    many = share(np.arange(40) % 2.0, np.arange(40) // 2)
    assert (many.low, many.high) == bootstrap(np.arange(40) % 2.0, np.arange(40) // 2)
    assert mean(np.ones(9), np.arange(9)) is None
    assert mean(np.ones(20), np.arange(20)).low == 1.0


def test_groups_keep_their_order_and_leave_out_what_is_in_none():
    found = by_group(
        np.array([1.0, 0, 1, 0]), np.arange(4), [11, 2, 11, None], name=lambda g: f"gap {g}"
    )
    assert list(found) == ["gap 2", "gap 11"]
    assert [(e.value, e.count) for e in found.values()] == [(0.0, 1), (1.0, 2)]


def test_correlations_are_loops_and_residuals_of_a_fit():
    draw = random.Random(5)
    given = [draw.gauss(0, 1) for _ in range(60)]
    a = [0.8 * g + draw.gauss(0, 1) for g in given]
    b = [-0.5 * g + 0.3 * x + draw.gauss(0, 1) for g, x in zip(given, a, strict=True)]

    def pearson(x, y):
        mx, my = sum(x) / len(x), sum(y) / len(y)
        cov = sum((p - mx) * (q - my) for p, q in zip(x, y, strict=True))
        vx, vy = sum((p - mx) ** 2 for p in x), sum((q - my) ** 2 for q in y)
        return cov / math.sqrt(vx * vy)

    def residuals(y):
        my, mg = sum(y) / len(y), sum(given) / len(given)
        slope = sum((g - mg) * (v - my) for g, v in zip(given, y, strict=True)) / sum(
            (g - mg) ** 2 for g in given
        )
        return [v - my - slope * (g - mg) for g, v in zip(given, y, strict=True)]

    assert correlation(a, b) == pytest.approx(pearson(a, b))
    expected = pearson(residuals(a), residuals(b))
    assert partial_correlation(a, b, given) == pytest.approx(expected)
    assert abs(expected - pearson(a, b)) > 0.05


def test_what_does_not_vary_has_no_correlation():
    assert correlation([1.0, 2.0], [3.0, 3.0]) is None and correlation([1.0], [2.0]) is None
    third = [0.1 + 0.2, 0.3]  # differ by rounding alone
    assert correlation(third, [1.0, 2.0]) is None
    assert partial_correlation([1.0, 2, 3], [1.0, 3, 2], [4.0, 4, 4]) == correlation(
        [1.0, 2, 3], [1.0, 3, 2]
    )
    assert partial_correlation([1.0, 2, 3], [1.0, 3, 2], [1.0, 2, 3]) is None


def test_centring_takes_each_prompts_mean_off():
    found = centred(np.array([1.0, 3.0, 10.0, 5.0]), np.array([7, 7, 2, 7]))
    assert found.tolist() == [-2.0, 0.0, 0.0, 2.0]


def test_distribution_by_hand():
    assert distribution(np.array([1.0, 2.0, 3.0, 4.0, 5.0])) == {
        "mean": 3.0,
        "std": math.sqrt(2.0),
        "p25": 2.0,
        "median": 3.0,
        "p75": 4.0,
    }
