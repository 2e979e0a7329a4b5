"""Simulated labelers: they follow the rubric up to their noise, and nothing but their inputs."""

import itertools
from statistics import NormalDist

import pytest

from common.data.ad_moderation.labelers import rank
from tests.common.data.ad_moderation.examples import HEALTH, task

FACTS = task("policy", [HEALTH]).facts
BEST = (
    'It breaks the health claims policy. With "cures all pain" the ad promises a cure that no one '
    "can prove."
)
RESPONSES = [
    "The weather is nice today.",
    BEST,
    "It breaks the hidden costs policy.",
    "It breaks the health claims policy.",
    "",
]


def test_without_noise_every_labeler_follows_the_rubric():
    assert rank(RESPONSES, FACTS, seed=0, noise=0.0) == [[1, 3, 2, 0, 4]] * 3


def test_far_apart_answers_keep_their_order_under_the_default_noise():
    for seed in range(20):
        for order in rank(RESPONSES, FACTS, seed=seed):
            assert order == [1, 3, 2, 0, 4]


def test_labelers_disagree_about_answers_of_equal_worth():
    close = [BEST, BEST.replace("It breaks", "The ad violates")]
    orders = [tuple(o) for s in range(50) for o in rank(close, FACTS, seed=s)]
    assert 0.3 < orders.count((0, 1)) / len(orders) < 0.7


def test_rankings_do_not_depend_on_earlier_calls_or_on_the_order_of_the_responses():
    close = [
        BEST.replace("It breaks", start)
        for start in ("It breaks", "The ad violates", "This ad breaks")
    ]
    first = rank(close, FACTS, seed=3)
    rank(RESPONSES, FACTS, seed=9)
    assert rank(close, FACTS, seed=3) == first
    best_first = [[close[i] for i in order] for order in first]
    for permuted in itertools.permutations(close):
        orders = rank(permuted, FACTS, seed=3)
        assert [[permuted[i] for i in order] for order in orders] == best_first


def test_every_ranking_is_a_permutation_and_equal_texts_keep_their_order():
    orders = rank([BEST, BEST, "No.", BEST], FACTS, seed=1, labelers=5)
    assert len(orders) == 5
    for order in orders:
        assert sorted(order) == [0, 1, 2, 3]
        assert [i for i in order if i != 2] == [0, 1, 3]


def test_noise_is_in_points_of_a_criterion():
    """The noise of an overall score is a Gaussian of known width, so a better answer loses to a
    worse one as often as its tail says. Here the two differ by 1.2 points of completeness."""
    responses = [BEST, "It breaks the health claims policy."]
    gap = 100 * 5 / 22 * 1.2 / 2
    weights = (3, 4, 5, 2, 2, 2, 1, 3)
    noise = 1.0
    width = 100 / 2 / 22 * noise * (2 * sum(w * w for w in weights)) ** 0.5
    expected = NormalDist().cdf(-gap / width)
    orders = [o for s in range(300) for o in rank(responses, FACTS, seed=s, noise=noise)]
    flips = sum(order == [1, 0] for order in orders) / len(orders)
    assert flips == pytest.approx(expected, abs=0.05)
