"""Several labelers' rankings of the same responses become one (§3.2): three ways.

Every way gives each response its expected rank, in places from 1 (best) to the number of responses
n, so that a gap between two responses has one unit whatever the way. A labeler who ranked k of the
n responses says nothing about the others. None stands for a response that no labeler compared with
another.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

import numpy as np

from common.data.ranks import Ranks, judges

Aggregation = Literal["mean", "borda", "bradley_terry"]
RIDGE = 0.01
"""Pull of Bradley-Terry log-strengths towards 0: weak beside one labeler's single comparison."""


def aggregate(ranks: Sequence[Ranks], method: Aggregation = "mean") -> list[float | None]:
    """The expected rank of each response, by one of the functions below.

    Args:
        ranks: `[labelers][responses]`, as `common.data.ranks` has them.

    Returns:
        `[responses]`. Responses that the labelers put level have the very same value.
    """
    if method == "mean":
        return mean_ranks(ranks)
    return borda_ranks(ranks) if method == "borda" else bradley_terry_ranks(ranks)


def mean_ranks(ranks: Sequence[Ranks]) -> list[float | None]:
    """The mean over the labelers who ranked the response: every labeler counts alike.

    Rank r among k of n responses stands for r·(n + 1)/(k + 1), its expected place among all n if
    the k were drawn at random; with k = n it is r itself.

    Args:
        ranks: `[labelers][responses]`.

    Returns:
        `[responses]`; the sums are exact.
    """
    given: list[list[Fraction]] = [[] for _ in range(_responses(ranks))]
    for row in judges(ranks):
        scale = Fraction(len(row) + 1, _ranked(row) + 1)
        for places, rank in zip(given, row, strict=True):
            if rank is not None:
                places.append(Fraction(rank) * scale)
    return [float(sum(places) / len(places)) if places else None for places in given]


def borda_ranks(ranks: Sequence[Ranks]) -> list[float | None]:
    """By the share of its comparisons that a response wins, ties half: every comparison counts.

    That is Borda's count, a point for each response below, divided by the most that it could be, so
    that those whom few labelers ranked are not punished (as in Shah and Wainwright 2018,
    https://jmlr.org/papers/v18/16-206.html). Where every labeler ranked every response it gives
    the mean rank.

    Args:
        ranks: `[labelers][responses]`.

    Returns:
        `[responses]`: 1 + (n − 1)·(1 − share); the sums are exact.
    """
    n = _responses(ranks)
    points, most = [Fraction(0)] * n, [0] * n
    for row in judges(ranks):
        k = _ranked(row)
        for i, rank in enumerate(row):
            if rank is not None:
                points[i] += k - Fraction(rank)  # those below it, and half of those level with it
                most[i] += k - 1
    return [
        float(1 + (n - 1) * (1 - won / of)) if of else None
        for won, of in zip(points, most, strict=True)
    ]


def bradley_terry_ranks(ranks: Sequence[Ranks], *, ridge: float = RIDGE) -> list[float | None]:
    """By the strengths that make the labelers' comparisons likeliest.

    Unlike the others it heeds whom a response was compared with: to beat a strong one counts more.

    Args:
        ranks: `[labelers][responses]`; a tie is half a win for either.
        ridge: see `bradley_terry_strengths`.

    Returns:
        `[responses]`: 1 + the expected number of others that beat it, Σ_j P(j before i); rounded
        to a billionth, so that level responses are level.
    """
    wins = comparisons(ranks)
    strengths = bradley_terry_strengths(wins, ridge=ridge)
    beaten = 1 / (1 + np.exp(strengths[:, None] - strengths[None, :]))
    expected = np.round(0.5 + beaten.sum(axis=1), 9)  # itself is in the sum with a half
    compared = (wins + wins.T).sum(axis=1) > 0
    return [float(x) if known else None for x, known in zip(expected, compared, strict=True)]


def comparisons(ranks: Sequence[Ranks]) -> np.ndarray:
    """How often each response was put before each other one; a tie is half for either.

    Args:
        ranks: `[labelers][responses]`.

    Returns:
        `[responses, responses]` float64: entry (i, j) counts i before j.
    """
    n = _responses(ranks)
    wins = np.zeros((n, n))
    for row in judges(ranks):
        places = np.array([np.nan if rank is None else rank for rank in row])
        # Comparisons with NaN, the unranked ones, are false.
        wins += places[:, None] < places[None, :]
        wins += 0.5 * (places[:, None] == places[None, :])
    np.fill_diagonal(wins, 0)
    return wins


def bradley_terry_strengths(wins: np.ndarray, *, ridge: float = RIDGE) -> np.ndarray:
    """Log-strengths s that maximise Σ_ij wins_ij·log P(i before j) − ridge/2·Σ_i s_i².

    P(i before j) = 1/(1 + e^(s_j − s_i)) (Bradley and Terry 1952; Hunter 2004,
    https://doi.org/10.1214/aos/1079120141). Without the ridge a response that never loses would be
    infinitely strong, and parts that were never compared could not be placed; with it the maximum
    is unique. Found by Newton's method with halved steps.

    Args:
        wins: `[responses, responses]`, see `comparisons`.
        ridge: above 0.

    Returns:
        `[responses]` float64, of mean 0.
    """
    n, played = len(wins), wins + wins.T
    strengths = np.zeros(n)

    def objective(s: np.ndarray) -> float:
        # log P = −log(1 + e^(s_j − s_i)), which must not overflow on the way.
        likelihood = -(wins * np.logaddexp(0, s[None, :] - s[:, None])).sum()
        return likelihood - ridge / 2 * (s**2).sum()

    for _ in range(100):
        first = 1 / (1 + np.exp(strengths[None, :] - strengths[:, None]))  # P(i before j)
        gradient = wins.sum(axis=1) - (played * first).sum(axis=1) - ridge * strengths
        curvature = played * first * (1 - first)
        hessian = np.diag(curvature.sum(axis=1) + ridge) - curvature
        step = np.linalg.solve(hessian, gradient)
        before = objective(strengths)
        while objective(strengths + step) < before and np.abs(step).max(initial=0) > 1e-12:
            step /= 2
        strengths += step
        if np.abs(step).max(initial=0) <= 1e-12:
            break
    return strengths


def _responses(ranks: Sequence[Ranks]) -> int:
    return len(ranks[0]) if ranks else 0


def _ranked(row: Ranks) -> int:
    return sum(rank is not None for rank in row)
