"""From rows to scores with their intervals: of a part, and of a benchmark over its parts."""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

AVERAGES = {"math": "questions"}
"""Over what a benchmark with parts is averaged: over its questions, all alike (MATH: Hendrycks et
al. 2021, https://arxiv.org/abs/2103.03874, report accuracy over all problems); by default over
its parts (MMLU, BBH, AGIEval), each of which then counts the same however long it is."""


class Estimate(NamedTuple):
    """A score with its interval, all between 0 and 1."""

    score: float
    low: float
    high: float


def wilson(score: float, n: int, level: float = 0.95) -> Estimate:
    """The score interval of a share (Wilson 1927): never empty, also at 0 and 1.

    Questions are taken to be independent. For scores between 0 and 1 (F1) the interval is wide
    rather than narrow: no variance is larger than that of rights and wrongs with the same mean.

    Args:
        score: mean over n questions, 0 to 1.
        n: at least 1.
    """
    z = NormalDist().inv_cdf(0.5 + level / 2)
    width = 1 + z * z / n
    middle = (score + z * z / (2 * n)) / width
    half = z / width * math.sqrt(score * (1 - score) / n + z * z / (4 * n * n))
    return Estimate(score, max(0.0, min(middle - half, score)), min(1.0, max(middle + half, score)))


def mean_of_parts(parts: Sequence[Estimate]) -> Estimate:
    """Mean of independent scores, and an interval from theirs.

    The distances to the limits add up as deviations do, each side by itself (Zou and Donner 2008,
    "Construction of confidence limits about effect measures", https://doi.org/10.1002/sim.3095).
    With one part it is that part's own interval.

    Args:
        parts: at least one.
    """
    count = len(parts)
    mean = sum(p.score for p in parts) / count
    below = math.sqrt(sum((p.score - p.low) ** 2 for p in parts)) / count
    above = math.sqrt(sum((p.high - p.score) ** 2 for p in parts)) / count
    return Estimate(mean, mean - below, mean + above)


def score_of(rows: Sequence[Mapping[str, Any]]) -> Estimate:
    """Of the rows of one part."""
    return wilson(sum(row["score"] for row in rows) / len(rows), len(rows))


def benchmark_score(name: str, parts: Mapping[str, Sequence[Mapping[str, Any]]]) -> Estimate:
    """Of all parts of a benchmark, averaged as `AVERAGES` says.

    Args:
        parts: part -> its rows.
    """
    if average_of(name) == "questions":
        return score_of([row for rows in parts.values() for row in rows])
    return mean_of_parts([score_of(rows) for rows in parts.values()])


def average_of(name: str) -> str:
    """Over what a benchmark is averaged: "parts" or "questions"."""
    return AVERAGES.get(name, "parts")


def percent(estimate: Estimate) -> dict[str, float]:
    """Score and limits in percent, rounded to hundredths, as the paper has its scores."""
    return {name: round(100 * value, 2) for name, value in estimate._asdict().items()}
