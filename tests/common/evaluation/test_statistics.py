"""Intervals against exact distributions and a plain loop; counts by hand."""

import math
import random
import statistics

import numpy as np
import pytest

from common.evaluation.statistics import (
    bootstrap_ci,
    mean_by_prompt,
    repeated_share,
    same_order,
    win_tie_loss,
)


def loop_interval(values, resamples, level):
    """The definition, with other random numbers: sorted means, ends linearly interpolated."""
    draws = random.Random(7)
    means = sorted(
        sum(draws.choice(values) for _ in values) / len(values) for _ in range(resamples)
    )
    ends = []
    for quantile in ((1 - level) / 2, (1 + level) / 2):
        place = quantile * (resamples - 1)
        low = math.floor(place)
        high = min(low + 1, resamples - 1)
        ends.append(means[low] + (place - low) * (means[high] - means[low]))
    return ends


def test_constant_data_has_no_width():
    assert bootstrap_ci([7.5] * 12, seed=0) == (7.5, 7.5)
    assert bootstrap_ci([3.0], seed=0) == (3.0, 3.0)


@pytest.mark.parametrize("n", [1, 5, 45])
@pytest.mark.parametrize("value", [0.0, 30.0, 100.0])
def test_constant_data_between_bounds_tells_what_it_may_have_missed(n, value):
    low, high = bootstrap_ci([value] * n, seed=0, bounds=(0.0, 100.0))
    inside, outside = 0.0, 1.0  # the share of others that n draws miss with probability 1/40
    for _ in range(60):
        share = (inside + outside) / 2
        if (1 - share) ** n >= 0.025:
            inside = share
        else:
            outside = share
    assert low == pytest.approx((1 - inside) * value + inside * 0.0, abs=1e-9)
    assert high == pytest.approx((1 - inside) * value + inside * 100.0, abs=1e-9)
    varied = [value] * n + [50.0]
    assert bootstrap_ci(varied, 0, bounds=(0.0, 100.0)) == bootstrap_ci(varied, 0)


def test_two_points_follow_their_exact_distribution():
    # The mean of two draws from {0, 1} is 0, ½, 1 with probability ¼, ½, ¼.
    assert bootstrap_ci([0.0, 1.0], seed=0) == (0.0, 1.0)
    assert bootstrap_ci([0.0, 1.0], seed=0, level=0.4) == (0.5, 0.5)


def test_ten_coins_follow_the_binomial():
    # Ten draws from five heads, five tails: Binomial(10, ½), P(X ≤ 1) = .011, P(X ≤ 2) = .055.
    assert bootstrap_ci([0.0] * 5 + [1.0] * 5, seed=1) == pytest.approx((0.2, 0.8))


def test_agrees_with_a_plain_loop():
    draws = random.Random(1)
    values = [draws.expovariate(1.0) for _ in range(15)]
    ours = bootstrap_ci(values, seed=3, resamples=20_000)
    assert ours == pytest.approx(loop_interval(values, 10_000, 0.95), abs=0.03)
    narrower = bootstrap_ci(values, seed=3, resamples=20_000, level=0.5)
    assert narrower == pytest.approx(loop_interval(values, 10_000, 0.5), abs=0.03)


def test_agrees_with_the_normal_interval_on_many_values():
    values = np.random.default_rng(0).normal(5.0, 2.0, size=1000)
    error = 1.96 * statistics.stdev(values.tolist()) / math.sqrt(1000)
    low, high = bootstrap_ci(values, seed=0)
    assert low == pytest.approx(values.mean() - error, abs=0.02)
    assert high == pytest.approx(values.mean() + error, abs=0.02)


def test_holds_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(5)
    hits = 0
    for trial in range(300):
        low, high = bootstrap_ci(rng.uniform(0, 10, size=40), seed=trial, resamples=500)
        hits += low <= 5.0 <= high
    assert 0.90 <= hits / 300 <= 0.985


def test_is_seeded():
    values = [1.0, 2.0, 4.0, 8.0, 16.0, 3.0, 5.0]
    assert bootstrap_ci(values, seed=1) == bootstrap_ci(values, seed=1)
    ends = {bootstrap_ci(values, seed=seed, resamples=50) for seed in range(5)}
    assert len(ends) > 1


def test_drawing_in_parts_changes_only_the_memory(monkeypatch):
    values = np.random.default_rng(0).normal(size=50)
    whole = bootstrap_ci(values, seed=0)
    monkeypatch.setattr("common.evaluation.statistics._INDICES_AT_ONCE", 50 * 300)
    assert bootstrap_ci(values, seed=0) == pytest.approx(whole, abs=0.03)
    # 2000 resamples in parts of 300: still a real interval, not that of a remainder.
    assert bootstrap_ci([0.0] * 5 + [1.0] * 5, seed=1) == pytest.approx((0.2, 0.8))


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [1.0, math.inf]])
def test_nothing_or_not_a_number_is_an_error(values):
    with pytest.raises(ValueError, match="finite"):
        bootstrap_ci(values, seed=0)


def test_a_prompts_samples_are_averaged_first():
    pairs = [("a", 0.0), ("b", 10.0), ("a", 2.0), ("a", 4.0)]
    assert mean_by_prompt(pairs) == {"a": 2.0, "b": 10.0}


def test_wins_ties_losses_by_hand():
    first = {1: 5.0, 2: 5.0, 3: 5.0, 4: 0.1 + 0.2, 5: 1.0, 6: 9.0}
    second = {1: 4.0, 2: 5.0, 3: 6.0, 4: 0.3, 5: 1.0 + 1e-6, 7: 0.0}
    # 1 won; 2 and 4 (equal but for rounding) tied; 3 and 5 lost; 6 and 7 have no partner.
    assert win_tie_loss(first, second) == (1, 2, 2)
    assert win_tie_loss(second, first) == (2, 2, 1)
    assert win_tie_loss({}, second) == (0, 0, 0)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0.0),
        ("one two three", 0.0),
        ("a b c d e f", 0.0),
        ("a b c d a b c d", 1 / 5),  # abcd bcda cdab dabc abcd
        ("no no no no no no", 2 / 3),  # three times the same
        ("你好你好你好你好", 3 / 5),  # five of four characters, two kinds of them
        ("Yes, it may run. Yes, it may run.", 3 / 9),
    ],
)
def test_repeated_text_by_hand(text, share):
    assert repeated_share(text) == pytest.approx(share)


def test_repeated_text_is_what_a_loop_meets_again():
    draw = np.random.default_rng(0)
    words = [str(w) for w in draw.integers(3, size=60)]
    met, again = [], 0
    for start in range(len(words) - 1):
        gram = words[start : start + 2]
        again += gram in met
        met.append(gram)
    assert repeated_share(" ".join(words), size=2) == pytest.approx(again / len(met))


def test_two_judges_agree_on_pairs_that_the_first_tells_apart():
    assert same_order([(1, 0.1), (2, 0.2), (3, 0.3)]) == 1.0
    assert same_order([(1, 0.3), (2, 0.2), (3, 0.1)]) == 0.0
    # 1 < 2 agreed; 1 < 3 equal for the second; 2 < 3 disagreed; the pair of ones is passed over.
    assert same_order([(1, 0.5), (1, 0.4), (2, 0.9), (3, 0.5)]) == pytest.approx(
        (1 + 1 + 0.5 + 1 + 0) / 5
    )
    assert same_order([(1, 0.1), (1, 0.9)]) is None
    assert same_order([]) is None
