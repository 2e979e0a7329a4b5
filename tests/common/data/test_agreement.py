"""Kendall's W: published examples, its definition by sums of squares, and what is left out."""

import random

import numpy as np
import pytest

from common.data.agreement import kendalls_w

# The data set `anxiety` of R's irr and DescTools: 20 subjects, rated from 1 to 6 by three raters.
# `KendallW(anxiety, TRUE)` prints 0.5396569, `irr::kendall` a chi-squared(19) of 30.8
# (https://andrisignorell.github.io/DescTools/reference/KendallW.html).
ANXIETY = [
    [3, 3, 3, 4, 5, 5, 2, 3, 5, 2, 2, 6, 1, 5, 2, 2, 1, 2, 4, 3],
    [3, 6, 4, 6, 2, 4, 2, 4, 3, 3, 2, 3, 3, 3, 2, 2, 1, 3, 3, 4],
    [2, 1, 4, 4, 3, 2, 1, 6, 1, 1, 1, 2, 3, 3, 1, 1, 3, 3, 2, 2],
]


def test_a_published_example_with_ties():
    w = kendalls_w(ANXIETY)
    assert w == pytest.approx(0.5396569, abs=5e-8)
    assert round(3 * 19 * w, 1) == 30.8  # chi-squared = m(n - 1)W


def test_a_published_example_without_ties():
    # https://www.proofwiki.org/wiki/Kendall%27s_Coefficient_of_Concordance/Examples
    judges = [[1, 3, 2], [1, 2, 3], [2, 3, 1], [3, 1, 2]]
    assert kendalls_w(judges) == pytest.approx(1 / 16)


def drawn(draw, labelers, responses):
    """Random scores of few values, so that many are tied."""
    return [[draw.randint(1, 4) for _ in range(responses)] for _ in range(labelers)]


@pytest.mark.parametrize("seed", range(20))
def test_is_the_share_of_the_squares_between_the_responses(seed):
    # W is the variance of the rank sums over what it would be if everybody agreed: the sum of
    # squares between responses over the total one, each labeler's ranks taken from their mean.
    draw = random.Random(seed)
    scores = drawn(draw, draw.randint(2, 6), draw.randint(2, 9))
    ranks = np.zeros((len(scores), len(scores[0])))
    for j, row in enumerate(scores):
        for i, score in enumerate(row):
            places = [k + 1 for k, other in enumerate(sorted(row)) if other == score]
            ranks[j, i] = sum(places) / len(places)
    total = ((ranks - ranks.mean()) ** 2).sum()
    between = len(scores) * ((ranks.mean(axis=0) - ranks.mean()) ** 2).sum()
    assert total > 0
    w = kendalls_w(scores)
    assert w == pytest.approx(between / total)
    assert -1e-12 <= w <= 1 + 1e-12


def test_knows_neither_the_labelers_nor_the_responses_order_nor_the_scale():
    draw = random.Random(3)
    scores = drawn(draw, 4, 6)
    w = kendalls_w(scores)
    labelers, places = [2, 0, 3, 1], draw.sample(range(6), 6)
    assert kendalls_w([[scores[j][i] for i in places] for j in labelers]) == pytest.approx(w)
    assert kendalls_w([[score**3 - 7.5 for score in row] for row in scores]) == pytest.approx(w)
    assert kendalls_w([[-score for score in row] for row in scores]) == pytest.approx(w)


@pytest.mark.parametrize(
    ("ranks", "w"),
    [
        ([[1, 2, 3], [1, 2, 3], [1, 2, 3]], 1),
        ([[1.5, 1.5, 3], [1.5, 1.5, 3]], 1),  # they agree on the tie, too
        ([[1, 2, 3], [3, 2, 1]], 0),
        ([[1, 2, 3], [2, 2, 2]], 0.5),  # one says nothing: half of the most that two can agree
    ],
)
def test_full_no_and_half_agreement(ranks, w):
    assert kendalls_w(ranks) == pytest.approx(w)


@pytest.mark.parametrize(
    "ranks",
    [
        [],
        [[1, 2, 3]],
        [[1, 2, 3], [1, None, None]],  # the second compared nothing
        [[1, 2, None], [None, 1, 2]],  # only one response in common
        [[2, 2, 2], [1.5, 1.5, None]],
    ],
)
def test_none_where_there_is_nothing_to_compare(ranks):
    assert kendalls_w(ranks) is None


def test_compares_what_every_labeler_ranked():
    whole = [[1, 2, 3], [2, 1, 3], [1, 3, 2]]
    # A fourth response that the first did not rank, and a fourth labeler who could not judge.
    more = [[1, 2, 3, None], [3, 1, 4, 2], [2, 4, 3, 1], [None, None, None, None]]
    assert kendalls_w(more) == pytest.approx(kendalls_w(whole))
    assert 0 < kendalls_w(whole) < 1
